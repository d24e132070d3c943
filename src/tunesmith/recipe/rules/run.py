"""Rules on length, evaluation and rare options."""

from __future__ import annotations

import difflib
from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.defaults import has_default

RARE = ("full_determinism", "tf32", "torch_empty_cache_steps")

OURS = {
    "adam_epsilon": "optimizer.eps",
    "lr_scheduler_kwargs": "optimizer.min_rate, decay, power or cycles",
    "optim": "optimizer.name",
    "optim_args": "the options of optimizer.name",
}
"""What we have a name of our own for."""


def one_length(recipe: Recipe) -> None:
    """Epochs and steps both say how long a run lasts."""
    if recipe.run.epochs is not None and recipe.run.steps is not None:
        raise RecipeError(
            "both run.epochs and run.steps are given, and only one can decide",
            hint="remove one of them",
            where="run.steps",
        )


def one_validation(recipe: Recipe) -> None:
    """Held-out rows come from files or from the training rows."""
    data = recipe.data
    given = {
        "data.validation": bool(data.validation),
        "data.validation_share": bool(data.validation_share),
        "data.validation_rows": data.validation_rows is not None,
    }
    first, *others = [option for option, asked in given.items() if asked] or [""]
    if others:
        raise RecipeError(
            f"both {first} and {others[0]} are given",
            hint="remove one of them",
            where=others[0],
        )


def evaluation_needs_rows(recipe: Recipe) -> None:
    """Nothing can be measured without held-out rows."""
    data = recipe.data
    if data.validation or data.validation_share or data.validation_rows:
        return
    for option in ("optimizer.early_stopping", "evaluate.every_steps", "evaluate.batch_size"):
        if not has_default(recipe, option):
            raise RecipeError(
                f"{option} has no effect: there are no held-out rows",
                hint="write data.validation_share: 0.1, or name files in data.validation",
                where=option,
            )


def samples_have_length(recipe: Recipe) -> None:
    """A length for answers that are not asked for means nothing."""
    if not recipe.evaluate.sample_rows and not has_default(recipe, "evaluate.sample_tokens"):
        raise RecipeError(
            "evaluate.sample_tokens has no effect: evaluate.sample_rows is 0",
            hint="remove it, or ask for samples",
            where="evaluate.sample_tokens",
        )


def rare_options_are_known(recipe: Recipe) -> None:
    """Of the options underneath only those are passed on that act and leave a resume exact."""
    for name in recipe.run.extra:
        if name in OURS:
            raise RecipeError(
                f"{name} cannot be given here: there is an option of ours",
                hint=f"write {OURS[name]}; see `tunesmith recipe explain optimizer`",
                where=f"run.extra.{name}",
            )
        if name not in RARE:
            near = difflib.get_close_matches(name, RARE, n=1)
            raise RecipeError(
                f"{name} cannot be given here; this takes {', '.join(RARE)}",
                hint=f"did you mean {near[0]}?"
                if near
                else "most options have a name of ours: see `tunesmith recipe explain`",
                where=f"run.extra.{name}",
            )


RULES: tuple[Callable[[Recipe], None], ...] = (
    one_length,
    one_validation,
    evaluation_needs_rows,
    samples_have_length,
    rare_options_are_known,
)
