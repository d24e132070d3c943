"""Rules on a base of few bits: they can be read, but no small step can be taken in them."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import Reward
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import QUANTIZE
from tunesmith.recipe.tuning import LoRA


def quantized_stays_frozen(recipe: Recipe) -> None:
    """What is quantized does not move, and is not looked at."""
    if recipe.model.quantize is not None:
        check_few_bits(recipe, where=QUANTIZE, otherwise="remove model.quantize")


def check_few_bits(recipe: Recipe, *, where: str, otherwise: str) -> None:
    """Refuse what needs whole weights.

    Args:
        where: what says that the base is of few bits.
        otherwise: how whole weights are had.
    """
    if recipe.model.from_scratch:
        raise RecipeError(
            "random weights cannot be quantized: all of them are to be trained",
            hint=f"{otherwise}, or name a model that is trained already",
            where=where,
        )
    if isinstance(recipe.method, Reward):
        raise RecipeError(
            "a reward model is not trained on a quantized base yet",
            hint=f"{otherwise}, and load the base in compute.precision: bf16",
            where=where,
        )
    if not isinstance(recipe.tuning, LoRA):
        raise RecipeError(
            f"quantized weights cannot be trained, as tuning.kind {recipe.tuning.kind} would",
            hint=f"write tuning.kind: lora, or {otherwise}",
            where=where,
        )
    if recipe.compute.precision == "pure_bf16":
        raise RecipeError(
            "compute.precision: pure_bf16 keeps all weights in bf16, a quantized base does not",
            hint="write compute.precision: bf16; it takes no more memory worth naming",
            where="compute.precision",
        )
    begun = recipe.tuning.init != "default"
    if begun or recipe.tuning.dora:
        what = f"tuning.init: {recipe.tuning.init}" if begun else "tuning.dora"
        raise RecipeError(
            f"{what} looks at whole weights, and a quantized base keeps a few bits of them",
            hint=f"remove it, or {otherwise}",
            where="tuning.init" if begun else "tuning.dora",
        )


RULES: tuple[Callable[[Recipe], None], ...] = (quantized_stays_frozen,)
