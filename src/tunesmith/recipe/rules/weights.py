"""Rules on the weights that move and those that do not."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import Classify, Reward
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import QUANTIZE
from tunesmith.recipe.tuning import Freeze, Full, LoRA


def scratch_trains_all(recipe: Recipe) -> None:
    """Random weights that never move are of no use."""
    if recipe.model.from_scratch and not isinstance(recipe.tuning, Full):
        raise RecipeError(
            f"a model from scratch cannot be tuned by {recipe.tuning.kind}: the rest of it would "
            "stay random",
            hint="write tuning.kind: full",
            where="tuning.kind",
        )


def quantized_stays_frozen(recipe: Recipe) -> None:
    """Few bits can be read, but no small step can be taken in them."""
    if recipe.model.quantize is None:
        return
    if recipe.model.from_scratch:
        raise RecipeError(
            "random weights cannot be quantized: all of them are to be trained",
            hint="remove it, or name a model that is trained already",
            where=QUANTIZE,
        )
    if isinstance(recipe.method, Reward | Classify):
        what = "reward model" if isinstance(recipe.method, Reward) else "classifier"
        raise RecipeError(
            f"a {what} is not trained on a quantized base yet",
            hint="remove it, or load the base in compute.precision: bf16",
            where=QUANTIZE,
        )
    if not isinstance(recipe.tuning, LoRA):
        raise RecipeError(
            f"quantized weights cannot be trained, as tuning.kind {recipe.tuning.kind} would",
            hint="write tuning.kind: lora, or remove model.quantize",
            where=QUANTIZE,
        )
    if recipe.compute.precision == "pure_bf16":
        raise RecipeError(
            "compute.precision: pure_bf16 keeps all weights in bf16, a quantized base does not",
            hint="write compute.precision: bf16; it takes no more memory worth naming",
            where="compute.precision",
        )


def freeze_counts_or_names(recipe: Recipe) -> None:
    """Frozen tuning opens layers by count or by name, and at least something."""
    tuning = recipe.tuning
    if not isinstance(tuning, Freeze):
        return
    if tuning.names and tuning.layers != type(tuning).model_fields["layers"].default:
        raise RecipeError(
            "tuning.layers has no effect: tuning.names says what is trained",
            hint="remove one of them",
            where="tuning.layers",
        )
    if not tuning.names and not tuning.layers and not tuning.embeddings:
        raise RecipeError(
            "nothing would be trained: tuning.layers is 0",
            hint="write how many of the last layers to train, or names of parameters",
            where="tuning.layers",
        )


RULES: tuple[Callable[[Recipe], None], ...] = (
    scratch_trains_all,
    quantized_stays_frozen,
    freeze_counts_or_names,
)
