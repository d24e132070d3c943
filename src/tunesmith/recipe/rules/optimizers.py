"""Rules on optimizers, schedules and the processes that share an update."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.optimizer import Layerwise, Scheduled
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.defaults import has_default
from tunesmith.recipe.tuning import Adapter, Full

SHAPED_BY = {
    "min_rate": ("warmup_stable_decay", "polynomial", "cosine_with_min_lr"),
    "decay": ("warmup_stable_decay",),
    "power": ("polynomial",),
    "cycles": ("cosine_with_restarts",),
}
"""The schedules that an option bends."""


def one_size_of_update(recipe: Recipe) -> None:
    """Rows and tokens both say what an update holds."""
    for option in ("optimizer.batch_size", "optimizer.accumulation"):
        if recipe.optimizer.update_tokens and not has_default(recipe, option):
            raise RecipeError(
                f"{option} has no effect: optimizer.update_tokens says what an update holds",
                hint="remove one of them",
                where=option,
            )


def every_process_has_rows(recipe: Recipe) -> None:
    """A process that never gets a row of an update only takes room."""
    rows = recipe.optimizer.batch_size * recipe.optimizer.accumulation
    processes = recipe.compute.processes or 1
    if not recipe.optimizer.update_tokens and processes > rows:
        raise RecipeError(
            f"{processes} processes are to share the {rows} rows of an update",
            hint=f"write compute.processes: {rows} at most, or raise optimizer.batch_size",
            where="compute.processes",
        )


def layerwise_is_alone(recipe: Recipe) -> None:
    """A gradient that is used at once cannot be added up over processes first."""
    processes = recipe.compute.processes or 1
    if processes > 1 and isinstance(recipe.optimizer, Layerwise) and recipe.optimizer.layerwise:
        raise RecipeError(
            "optimizer.layerwise moves weights before the gradients of other processes are there",
            hint="write compute.processes: 1, or leave optimizer.layerwise out",
            where="compute.processes",
        )


def schedules_have_their_own_options(recipe: Recipe) -> None:
    """What bends one schedule means nothing to another."""
    optimizer = recipe.optimizer
    if not isinstance(optimizer, Scheduled):
        return
    for option, schedules in SHAPED_BY.items():
        known = optimizer.scheduler in schedules
        if not known and not has_default(recipe, f"optimizer.{option}"):
            raise RecipeError(
                f"optimizer.{option} has no effect on the schedule {optimizer.scheduler}",
                hint=f"remove it, or write optimizer.scheduler: {' or '.join(schedules)}",
                where=f"optimizer.{option}",
            )
    if optimizer.scheduler == "cosine_with_min_lr" and not optimizer.min_rate:
        raise RecipeError(
            "cosine_with_min_lr ends at optimizer.min_rate, which is 0: that is cosine",
            hint="write optimizer.min_rate: 0.1, or optimizer.scheduler: cosine",
            where="optimizer.min_rate",
        )


def decay_leaves_room_for_warmup(recipe: Recipe) -> None:
    """A rate cannot rise and fall at once."""
    optimizer = recipe.optimizer
    if not isinstance(optimizer, Scheduled) or optimizer.scheduler != "warmup_stable_decay":
        return
    if optimizer.warmup < 1 < optimizer.warmup + optimizer.decay:
        raise RecipeError(
            "optimizer.warmup and optimizer.decay are shares of more than all steps",
            hint="lower one of them",
            where="optimizer.decay",
        )


def layers_learn_at_rates_of_their_own(recipe: Recipe) -> None:
    """Matrices beside frozen layers are all of one age."""
    if recipe.optimizer.layer_decay != 1 and isinstance(recipe.tuning, Adapter):
        raise RecipeError(
            f"optimizer.layer_decay is for layers that are trained themselves, not for "
            f"{recipe.tuning.kind}",
            hint="remove it, or write tuning.kind: full or freeze",
            where="optimizer.layer_decay",
        )


def memory_is_saved_where_there_is_some(recipe: Recipe) -> None:
    """Some optimizers are made for whole matrices."""
    whole = ("galore", "apollo", "apollo_mini", "adam_mini", "badam")
    if recipe.optimizer.name in whole and isinstance(recipe.tuning, Adapter):
        raise RecipeError(
            f"{recipe.optimizer.name} saves memory on whole matrices, and {recipe.tuning.kind} "
            "trains less",
            hint="write optimizer.name: adamw, or tuning.kind: full",
            where="optimizer.name",
        )


def blocks_are_whole_models(recipe: Recipe) -> None:
    """One layer after another is trained where all of them are open."""
    if recipe.optimizer.name == "badam" and not isinstance(recipe.tuning, Full):
        raise RecipeError(
            f"badam goes through all layers, and tuning.kind is {recipe.tuning.kind}",
            hint="write tuning.kind: full, or optimizer.name: adamw",
            where="optimizer.name",
        )


def freed_gradients_are_not_shortened(recipe: Recipe) -> None:
    """How long all gradients are together is known when the first of them are gone."""
    optimizer = recipe.optimizer
    if isinstance(optimizer, Layerwise) and optimizer.layerwise and optimizer.max_grad_norm:
        raise RecipeError(
            "optimizer.max_grad_norm has no effect with optimizer.layerwise: gradients are freed "
            "before their length is known",
            hint="write optimizer.max_grad_norm: 0",
            where="optimizer.max_grad_norm",
        )


def freed_gradients_are_not_scaled(recipe: Recipe) -> None:
    """Whether any gradient overflows is known when the first of them are gone."""
    optimizer = recipe.optimizer
    scaled = recipe.compute.precision == "fp16"
    if scaled and isinstance(optimizer, Layerwise) and optimizer.layerwise:
        raise RecipeError(
            "compute.precision: fp16 leaves an update out where any gradient overflows, and "
            "optimizer.layerwise uses each at once",
            hint="write compute.precision: bf16 or fp32, or leave optimizer.layerwise out",
            where="compute.precision",
        )


RULES: tuple[Callable[[Recipe], None], ...] = (
    one_size_of_update,
    every_process_has_rows,
    layerwise_is_alone,
    schedules_have_their_own_options,
    decay_leaves_room_for_warmup,
    layers_learn_at_rates_of_their_own,
    memory_is_saved_where_there_is_some,
    blocks_are_whole_models,
    freed_gradients_are_not_shortened,
    freed_gradients_are_not_scaled,
)
