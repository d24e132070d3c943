"""Stretch the rotary positions of a model to longer texts than it was made for."""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.rope import Dynamic, Llama3, RopeScaling, Yarn

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

WHERE = "model.rope_scaling"
AXES = "mrope_section"
"""Where a model counts positions along several axes."""
MAIN = "full_attention"
"""The layers that see the whole text, where kinds of layers turn otherwise each."""


def settle_rope(config: PreTrainedConfig, rope: RopeScaling, longest: int) -> RopeScaling:
    """Write out the factor, and the length that it multiplies.

    Args:
        longest: tokens of the longest row that is asked for.

    Raises:
        RecipeError: if the model has no rotary positions, ones that are stretched already or ones
            that tell no length, or the rows fit as they are.
    """
    text: Any = config.get_text_config()
    turns = _main(text)
    if turns is None:
        raise _refusal(
            f"a model of {text.model_type} has no rotary positions that could be stretched",
            "remove it, or name a model with rotary positions, such as llama or qwen3",
        )
    kind = turns.get("rope_type", "default")
    if kind != "default":
        raise _refusal(
            f"the positions of the model are stretched already ({kind})",
            "remove it; its config.json says how long texts may be",
        )
    if isinstance(rope, Dynamic) and AXES in turns:
        raise _refusal(
            "the positions of the model have several axes, which tell no length of a text",
            "write model.rope_scaling.kind: yarn",
        )
    original = rope.original_length or int(text.max_position_embeddings)
    factor = rope.factor or float(ceil(longest / original))
    if factor <= 1:
        raise _refusal(
            f"rows of data.max_tokens: {longest} fit: the model takes {original:,} tokens",
            "remove it, or say how much longer texts may become: model.rope_scaling.factor=2",
        )
    return rope.model_copy(update={"factor": factor, "original_length": original})


def stretch(config: PreTrainedConfig, rope: RopeScaling) -> None:
    """Write into a model's configuration how its positions are stretched.

    Args:
        rope: with its factor and length written out.
    """
    text: Any = config.get_text_config()
    turns = _main(text)
    assert turns is not None
    assert rope.factor is not None
    assert rope.original_length is not None
    longest = rope.original_length
    if not isinstance(rope, Dynamic):  # there it says from which length on texts are stretched
        longest = int(rope.factor * longest)
    text.max_position_embeddings = longest
    turns.update({"rope_type": rope.kind, "factor": rope.factor})
    if isinstance(rope, Yarn | Llama3):
        turns["original_max_position_embeddings"] = rope.original_length
    if isinstance(rope, Llama3):
        turns["low_freq_factor"] = rope.low_frequency_factor
        turns["high_freq_factor"] = rope.high_frequency_factor


def longest_text(config: PreTrainedConfig) -> int | None:
    """Count the tokens of the longest text that a model takes; None if it takes any."""
    text: Any = config.get_text_config()
    name = text.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    longest = text.to_dict().get(name)
    turns = _main(text) or {}
    if longest and turns.get("rope_type") == "dynamic":
        return int(longest * turns["factor"])
    return int(longest) if longest else None


def _main(text: Any) -> dict[str, Any] | None:
    """Find what says how positions turn; None if nothing does."""
    turns = vars(text).get("rope_parameters")
    if not isinstance(turns, dict):
        return None
    main = turns.get(MAIN, turns)
    return main if isinstance(main, dict) and "rope_theta" in main else None


def _refusal(message: str, hint: str) -> RecipeError:
    return RecipeError(message, hint=hint, where=WHERE)
