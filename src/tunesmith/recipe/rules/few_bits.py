"""Rules on a base of few bits: they can be read, but no small step can be taken in them."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import Classify, Reward
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.quantize import FP4, HQQ, NF4
from tunesmith.recipe.schema import QUANTIZE
from tunesmith.recipe.tuning import IA3, OFT, AdaLoRA, Adapter, LoRA, VeRA

OVER_FEW_BITS = (LoRA, AdaLoRA, VeRA, OFT, IA3)
"""Kinds that ask a frozen layer for its outputs only."""


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
    if isinstance(recipe.method, Reward | Classify):
        what = "reward model" if isinstance(recipe.method, Reward) else "classifier"
        raise RecipeError(
            f"a {what} is not trained on a quantized base yet",
            hint=f"{otherwise}, and load the base in compute.precision: bf16",
            where=where,
        )
    if not isinstance(recipe.tuning, OVER_FEW_BITS):
        kind, adapts = recipe.tuning.kind, isinstance(recipe.tuning, Adapter)
        raise RecipeError(
            f"{kind} computes with the weights themselves, and few bits hold none"
            if adapts
            else f"quantized weights cannot be trained, as tuning.kind {kind} would",
            hint=f"write tuning.kind: lora, or {otherwise}",
            where=where,
        )
    if recipe.compute.precision == "pure_bf16":
        raise RecipeError(
            "compute.precision: pure_bf16 keeps all weights in bf16, a quantized base does not",
            hint="write compute.precision: bf16; it takes no more memory worth naming",
            where="compute.precision",
        )
    if recipe.model.adapters:
        raise RecipeError(
            "model.adapters are added to whole weights, and a quantized base keeps few bits",
            hint="export the adapters first, and name what comes out in model.name",
            where="model.adapters",
        )
    if not isinstance(recipe.tuning, LoRA):
        return
    begun = recipe.tuning.init not in ("default", "eva", "loftq")
    if begun or recipe.tuning.dora:
        what = f"tuning.init: {recipe.tuning.init}" if begun else "tuning.dora"
        raise RecipeError(
            f"{what} looks at whole weights, and a quantized base keeps a few bits of them",
            hint=f"remove it, or {otherwise}",
            where="tuning.init" if begun else "tuning.dora",
        )


def what_few_bits_leave_out_is_completed(recipe: Recipe) -> None:
    """LoftQ completes what is coarse, and is found by quantizing again and again."""
    tuning, quantize = recipe.tuning, recipe.model.quantize
    if not isinstance(tuning, LoRA) or tuning.init != "loftq":
        return
    if not isinstance(quantize, NF4 | FP4 | HQQ):
        raise RecipeError(
            "tuning.init: loftq begins with what few bits leave out, and "
            + (f"{quantize.kind} is not one of its kinds" if quantize else "the base is whole"),
            hint="write model.quantize.kind: nf4, fp4 or hqq, or tuning.init: default",
            where="tuning.init",
        )


RULES: tuple[Callable[[Recipe], None], ...] = (
    quantized_stays_frozen,
    what_few_bits_leave_out_is_completed,
)
