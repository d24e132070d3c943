"""Rules on the weights that move and those that do not."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.tuning import Freeze, Full


def scratch_trains_all(recipe: Recipe) -> None:
    """Random weights that never move are of no use."""
    if recipe.model.from_scratch and not isinstance(recipe.tuning, Full):
        raise RecipeError(
            f"a model from scratch cannot be tuned by {recipe.tuning.kind}: the rest of it would "
            "stay random",
            hint="write tuning.kind: full",
            where="tuning.kind",
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
    freeze_counts_or_names,
)
