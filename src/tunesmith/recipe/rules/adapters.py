"""Rules on what is trained beside frozen weights."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import DPO, PPO
from tunesmith.recipe.optimizer import Layerwise
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.defaults import has_default
from tunesmith.recipe.rules.methods import asks_the_base
from tunesmith.recipe.tuning import HRA, IA3, TAKING, AdaLoRA, Adapter, LoRA

OF_INITS = {
    "tuning.eva_rows": "eva",
    "tuning.eva_rho": "eva",
    "tuning.loftq_rounds": "loftq",
}
"""Options of one way to begin."""


def targets_or_a_pattern(recipe: Recipe) -> None:
    """Layers are chosen by their names or by a pattern of them."""
    tuning = recipe.tuning
    if not isinstance(tuning, Adapter) or tuning.target_pattern is None:
        return
    if not has_default(recipe, "tuning.targets"):
        raise RecipeError(
            "tuning.targets has no effect: tuning.target_pattern says what is adapted",
            hint="remove one of them",
            where="tuning.targets",
        )


def what_is_begun_goes_on(recipe: Recipe) -> None:
    """An adapter that is there already does not begin."""
    tuning = recipe.tuning
    if isinstance(tuning, LoRA) and tuning.from_adapter and tuning.init != "default":
        raise RecipeError(
            "tuning.init has no effect: tuning.from_adapter says what is begun with",
            hint="remove one of them",
            where="tuning.init",
        )


def rows_choose_ranks_alone(recipe: Recipe) -> None:
    """Ranks come from the recipe or from the rows, and what the rows are asked is for eva."""
    tuning = recipe.tuning
    if not isinstance(tuning, LoRA):
        return
    for option, init in OF_INITS.items():
        if tuning.init != init and not has_default(recipe, option):
            raise RecipeError(
                f"{option} has no effect without tuning.init: {init}",
                hint=f"write tuning.init: {init}, or remove it",
                where=option,
            )
    if tuning.init == "eva" and tuning.rank_pattern:
        raise RecipeError(
            "tuning.rank_pattern has no effect: with tuning.init: eva the rows choose ranks",
            hint="remove one of them",
            where="tuning.rank_pattern",
        )


def what_is_frozen_learns_at_no_rate(recipe: Recipe) -> None:
    """A ratio is one of two."""
    tuning = recipe.tuning
    if isinstance(tuning, LoRA) and tuning.freeze_a and tuning.lora_plus_ratio != 1:
        raise RecipeError(
            "tuning.lora_plus_ratio has no effect: with tuning.freeze_a one matrix learns only",
            hint="raise optimizer.learning_rate instead",
            where="tuning.lora_plus_ratio",
        )


def right_angles_come_in_pairs(recipe: Recipe) -> None:
    """Half of the directions go into one matrix, half into the other."""
    tuning = recipe.tuning
    if not isinstance(tuning, LoRA) or tuning.init != "orthogonal":
        return
    ranks = {"rank": [tuning.rank], "rank_pattern": list(tuning.rank_pattern.values())}
    for option, given in ranks.items():
        for rank in given:
            if rank % 2:
                raise RecipeError(
                    f"tuning.init: orthogonal needs even ranks, and one is {rank}",
                    hint=f"write {rank + 1}",
                    where=f"tuning.{option}",
                )


def reflections_come_in_pairs(recipe: Recipe) -> None:
    """A reflection is undone by itself alone."""
    if isinstance(recipe.tuning, HRA) and recipe.tuning.rank % 2:
        raise RecipeError(
            f"hra begins with pairs of reflections, and tuning.rank is {recipe.tuning.rank}",
            hint=f"write tuning.rank: {recipe.tuning.rank + 1}",
            where="tuning.rank",
        )


def ranks_move_while_training_does(recipe: Recipe) -> None:
    """Ranks are taken away between a beginning and an end, by gradients that are still there."""
    tuning, optimizer = recipe.tuning, recipe.optimizer
    if not isinstance(tuning, AdaLoRA):
        return
    if tuning.first_rank <= tuning.rank:
        raise RecipeError(
            f"adalora takes ranks away, and begins with {tuning.first_rank} for {tuning.rank}",
            hint=f"write tuning.first_rank: {tuning.rank * 3 // 2 + 1}, or tuning.kind: lora",
            where="tuning.first_rank",
        )
    if isinstance(optimizer, Layerwise) and optimizer.layerwise:
        raise RecipeError(
            "optimizer.layerwise frees the gradients by which adalora finds what ranks are worth",
            hint="remove it",
            where="optimizer.layerwise",
        )
    if optimizer.name == "schedule_free":
        raise RecipeError(
            "schedule_free averages weights, and adalora sets some of them to zero",
            hint="write optimizer.name: adamw",
            where="optimizer.name",
        )


def weights_are_whole_where_they_are_looked_at(recipe: Recipe) -> None:
    """Lengths of weights are measured on all of them."""
    tuning = recipe.tuning
    if not isinstance(tuning, LoRA):
        return
    begins = tuning.init in TAKING
    if begins and tuning.dora:
        raise RecipeError(
            f"tuning.dora measures weights that tuning.init: {tuning.init} takes a part out of",
            hint="remove one of them",
            where="tuning.dora",
        )


def factors_near_one_move_by_small_steps(recipe: Recipe) -> None:
    """Numbers of bf16 near 1 lie 1/128 apart, and updates are smaller: all would be lost."""
    if isinstance(recipe.tuning, IA3) and recipe.compute.precision == "pure_bf16":
        raise RecipeError(
            "ia3 begins with factors of 1, and compute.precision: pure_bf16 knows no number "
            "between 1 and 1.0078: small steps would be lost",
            hint="write compute.precision: bf16; it takes no more memory worth naming",
            where="compute.precision",
        )


def values_are_read_before_a_whole_head(recipe: Recipe) -> None:
    """What is still to be gained is told from the states that one head is given."""
    tuning = recipe.tuning
    if isinstance(recipe.method, PPO) and isinstance(tuning, LoRA) and tuning.tokens:
        raise RecipeError(
            "ppo tells values from what the head is given, and tuning.tokens lets rows of the head "
            "learn apart",
            hint="write method.name: grpo, which needs no values, or remove tuning.tokens",
            where="tuning.tokens",
        )


def references_are_whole(recipe: Recipe) -> None:
    """The model before training is the base only where nothing was taken out of it."""
    tuning, method = recipe.tuning, recipe.method
    if isinstance(tuning, LoRA) and tuning.init in TAKING and asks_the_base(method):
        other = "" if not isinstance(method, DPO) else f", or method.reference: {recipe.model.name}"
        raise RecipeError(
            f"{method.name} asks the base, and tuning.init: {tuning.init} takes a part out of it",
            hint=f"write tuning.init: default{other}",
            where="tuning.init",
        )


def references_begin_where_training_does(recipe: Recipe) -> None:
    """The model before training is the base only where training does not go on from an adapter."""
    tuning, method = recipe.tuning, recipe.method
    if isinstance(tuning, Adapter) and tuning.from_adapter is not None and asks_the_base(method):
        other = (
            "" if not isinstance(method, DPO) else ", or name the export in method.reference too"
        )
        raise RecipeError(
            f"{method.name} compares with the base, and training goes on from an adapter on it",
            hint=f"export the run of the adapter, and name what comes out in model.name{other}",
            where="tuning.from_adapter",
        )


RULES: tuple[Callable[[Recipe], None], ...] = (
    targets_or_a_pattern,
    what_is_begun_goes_on,
    rows_choose_ranks_alone,
    what_is_frozen_learns_at_no_rate,
    right_angles_come_in_pairs,
    reflections_come_in_pairs,
    ranks_move_while_training_does,
    weights_are_whole_where_they_are_looked_at,
    factors_near_one_move_by_small_steps,
    values_are_read_before_a_whole_head,
    references_are_whole,
    references_begin_where_training_does,
)
