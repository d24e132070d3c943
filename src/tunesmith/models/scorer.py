"""The class of models that score: transformers' own, or the same head over a family that sees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WRITES, SCORES = "ForConditionalGeneration", "ForSequenceClassification"


def scorer_class(config: PreTrainedConfig, *, takes_more: bool) -> Any:
    """Find the class of a family's models that score; None if there is none.

    Of families that see or hear transformers has few; the others get the head that it puts over
    all models of text, and what they show reaches the model beneath.

    Args:
        takes_more: whether the family takes more than text.
    """
    from transformers import AutoModelForMultimodalLM, AutoModelForSequenceClassification
    from transformers.conversion_mapping import (
        get_checkpoint_conversion_mapping,
        register_checkpoint_conversion_mapping,
    )
    from transformers.modeling_layers import GenericForSequenceClassification
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        MODEL_MAPPING,
    )

    if config.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return AutoModelForSequenceClassification
    if not takes_more or type(config) not in MODEL_MAPPING:
        return None
    writer: Any = AutoModelForMultimodalLM._model_mapping[type(config)]
    family = next(kind for kind in writer.__mro__ if kind.__name__.endswith("PreTrainedModel"))
    if writer.base_model_prefix != GenericForSequenceClassification.base_model_prefix:
        return None
    name = writer.__name__.removesuffix(WRITES) + SCORES
    stored_as = get_checkpoint_conversion_mapping(writer.__name__)
    if stored_as is not None:  # else it is told by the family
        register_checkpoint_conversion_mapping(name, stored_as, overwrite=True)
    own = {"__module__": writer.__module__, "from_config": classmethod(_from_config)}
    return type(name, (GenericForSequenceClassification, family), own)


def _from_config(kind: Any, /, config: PreTrainedConfig, **options: Any) -> Any:
    """Build a model as transformers' own classes of classes do."""
    return kind._from_config(config, **options)
