"""Rules on the weights that move and those that do not."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.errors import RecipeError
from tunesmith.recipe.method import Classify, Online
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rope import Llama3
from tunesmith.recipe.rules.defaults import has_default
from tunesmith.recipe.rules.methods import asks_the_base, has_reference
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


def adapters_are_added_to_whole_weights(recipe: Recipe) -> None:
    """What others have learned is added to weights that are there, in all of their bits."""
    model = recipe.model
    if model.adapters and (model.quantize is not None or model.from_scratch):
        few = model.quantize is not None
        raise RecipeError(
            "model.adapters are added to whole weights, and "
            + ("model.quantize keeps a few bits of them" if few else "these would be random"),
            hint="export the adapters first, and name what comes out in model.name",
            where="model.adapters",
        )


def classifiers_take_a_model_as_it_is(recipe: Recipe) -> None:
    """What prepares a language model is not there for one that tells labels apart."""
    if not isinstance(recipe.method, Classify):
        return
    model = recipe.model
    given = {
        "adapters": bool(model.adapters),
        "rope_scaling": model.rope_scaling is not None,
        "shifted_attention": model.shifted_attention is not None,
    }
    for option, wanted in given.items():
        if wanted:
            raise RecipeError(
                f"model.{option} is not there yet for method.name: classify",
                hint="remove it, or name a model that an export has prepared so",
                where=f"model.{option}",
            )


def positions_are_stretched_once(recipe: Recipe) -> None:
    """Random weights know no positions yet."""
    if recipe.model.rope_scaling is not None and recipe.model.from_scratch:
        raise RecipeError(
            "a model from scratch has no positions yet that could be stretched",
            hint="write into its config.json how long texts may be, and remove it",
            where="model.rope_scaling",
        )


def frequencies_stand_in_order(recipe: Recipe) -> None:
    """What is stretched whole lies below what is left alone."""
    rope = recipe.model.rope_scaling
    if isinstance(rope, Llama3) and rope.low_frequency_factor >= rope.high_frequency_factor:
        raise RecipeError(
            "model.rope_scaling.low_frequency_factor is not below high_frequency_factor",
            hint="leave both out: 1 and 4 are usual",
            where="model.rope_scaling.low_frequency_factor",
        )


def groups_are_smaller_than_rows(recipe: Recipe) -> None:
    """Groups cut rows, two halves each, and the reference sees whole rows."""
    group = recipe.model.shifted_attention
    if group is None:
        return
    because = {
        f"has no effect: no row is longer than data.max_tokens: {recipe.data.max_tokens}": (
            group >= recipe.data.max_tokens,
            f"write {max(recipe.data.max_tokens // 4 // 2 * 2, 2)}, or remove it",
        ),
        f"is shifted by half a group, and {group} has no half": (
            bool(group % 2),
            f"write {group + 1}",
        ),
        f"does not go with {recipe.method.name}, whose reference sees whole rows": (
            has_reference(recipe.method) or asks_the_base(recipe.method),
            "remove it",
        ),
        f"does not go with {recipe.method.name}, whose answers are written with whole rows": (
            isinstance(recipe.method, Online),
            "remove it",
        ),
    }
    for why, (wrong, hint) in because.items():
        if wrong:
            raise RecipeError(
                f"model.shifted_attention {why}", hint=hint, where="model.shifted_attention"
            )


def parts_hold_what_is_frozen(recipe: Recipe) -> None:
    """Names say which part they lie in; layers are counted in the language model alone."""
    tuning = recipe.tuning
    if not isinstance(tuning, Freeze):
        return
    if tuning.names and not has_default(recipe, "tuning.parts"):
        raise RecipeError(
            "tuning.parts has no effect: tuning.names says what is trained",
            hint="remove one of them",
            where="tuning.parts",
        )
    if "language" not in tuning.parts and not has_default(recipe, "tuning.layers"):
        raise RecipeError(
            "tuning.layers has no effect: it counts those of the language model, which stays as "
            "it is",
            hint="remove it, or add language to tuning.parts",
            where="tuning.layers",
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
    if tuning.spread and (tuning.names or tuning.layers < 1):
        raise RecipeError(
            "tuning.spread spreads the layers that tuning.layers counts",
            hint="remove tuning.names" if tuning.names else "write how many in tuning.layers",
            where="tuning.spread",
        )
    if not tuning.names and not tuning.layers and not tuning.embeddings:
        raise RecipeError(
            "nothing would be trained: tuning.layers is 0",
            hint="write how many of the last layers to train, or names of parameters",
            where="tuning.layers",
        )


RULES: tuple[Callable[[Recipe], None], ...] = (
    scratch_trains_all,
    adapters_are_added_to_whole_weights,
    classifiers_take_a_model_as_it_is,
    positions_are_stretched_once,
    frequencies_stand_in_order,
    groups_are_smaller_than_rows,
    parts_hold_what_is_frozen,
    freeze_counts_or_names,
)
