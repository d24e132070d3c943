"""Models that name the class of a text or an image: a head of one score a label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.inspect import check_files, labels_of
from tunesmith.models.load import (
    LM_HEAD,
    load_config,
    move,
    quiet_libraries,
    read_architecture,
    read_weights,
    refuse_partial,
    takes_more,
)
from tunesmith.models.score import HEADS, find_score
from tunesmith.settings import forbid_network

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

OTHER_HEADS = (LM_HEAD, *(f"{head}." for head in HEADS), "decoder.")
"""How the names of weights begin that a classifier has no use for."""
POOLERS = ("pooler", "mask_token")


def is_image_model(folder: Path) -> bool:
    """Whether a model's folder is of a family that reads images and no text."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    )

    kind = check_files(folder, weights=False).get("model_type")
    images = kind in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    return images and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def load_classifier_model(
    folder: Path,
    labels: Sequence[str],
    *,
    dtype: torch.dtype,
    device: torch.device,
    scratch: bool = False,
) -> PreTrainedModel:
    """Load a model with a head of one score a label.

    A folder whose head is of the same labels keeps it; any other gets a new one, drawn from
    torch's current seed.

    Args:
        scratch: draw all other weights too.

    Raises:
        ModelError: if a tensor besides the head is missing, left over or of the wrong shape, or
            the family has no such head.
    """
    images, config = is_image_model(folder), labelled_config(folder, labels)
    kind = auto_class(images=images)
    if scratch:
        quiet_libraries()
        model = kind.from_config(config, dtype=dtype)
    else:
        model, loaded = read_weights(kind, folder, {"dtype": dtype, "config": config})
        new = labels_of(folder) != tuple(labels)
        if new:
            _draw_head(model)
        refuse_partial(folder, _but_heads(loaded, new=new))
    if find_score(model) is None:
        raise _no_head(folder, config)
    return move(model, device)


def _draw_head(model: PreTrainedModel) -> None:
    """Draw the numbers of a head, whose own may be of other labels."""
    import torch

    spread: float = model.config.to_dict().get("initializer_range") or 0.02
    head = find_score(model)
    for weight in [] if head is None else head.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=spread)
        else:
            torch.nn.init.zeros_(weight)


def _but_heads(loaded: dict[str, Any], *, new: bool) -> dict[str, Any]:
    """Leave out of what did not fit the heads, a new one and those that are left."""
    if not new:
        return loaded
    return {
        **loaded,
        "missing_keys": [key for key in loaded["missing_keys"] if not _is_head(key)],
        "unexpected_keys": [key for key in loaded["unexpected_keys"] if not _is_other(key)],
        "mismatched_keys": [key for key in loaded["mismatched_keys"] if not _is_head(key[0])],
    }


def _is_head(key: str) -> bool:
    return key.split(".", maxsplit=1)[0] in HEADS


def _is_other(key: str) -> bool:
    return key.startswith(OTHER_HEADS) or any(part in POOLERS for part in key.split("."))


def labelled_config(folder: Path, labels: Sequence[str]) -> PreTrainedConfig:
    """Read a model's architecture, with a head of these labels.

    Raises:
        ModelError: if transformers knows no such model of the family.
    """
    forbid_network()
    images = is_image_model(folder)
    config = read_architecture(folder) if images else load_config(folder)
    if not images and not is_scored(config):
        raise _no_head(folder, config)
    config.num_labels = len(labels)
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: number for number, label in enumerate(labels)}
    return config


def is_scored(config: PreTrainedConfig) -> bool:
    """Whether transformers has a model of texts with such a head for an architecture."""
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    return config.model_type in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES


def auto_class(*, images: bool) -> Any:
    """Return transformers' class of models with such a head."""
    from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

    return AutoModelForImageClassification if images else AutoModelForSequenceClassification


def choose_labels(folder: Path, found: Sequence[str]) -> tuple[str, ...]:
    """Choose between the labels of a model and those of the rows: the model's, if it knows all."""
    theirs = labels_of(folder)
    return theirs if theirs and set(found) <= set(theirs) else tuple(found)


def _no_head(folder: Path, config: PreTrainedConfig) -> ModelError:
    if takes_more(config.model_type):
        return ModelError(
            f"a model of the architecture {config.model_type!r}, which takes more than text, gets "
            "no head of labels",
            hint="let it learn labels as answers, from questions with `images` (method.name: sft), "
            "or take a model for images alone, such as vit",
            where=str(folder / "config.json"),
        )
    return ModelError(
        f"transformers knows no classifier of the architecture {config.model_type!r} that has one "
        f"head ({' or '.join(HEADS)})",
        hint="take a model of another family, such as qwen3 or llama for text, vit for images",
        where=str(folder / "config.json"),
    )
