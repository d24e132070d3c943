"""Go on from an adapter that was trained before."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError
from tunesmith.models.adapter import check_base, check_fit
from tunesmith.models.beneath import NOTHING, Beneath
from tunesmith.models.chat import find_adapter
from tunesmith.models.inspect import ADAPTER, BELONGS_TO, read_config
from tunesmith.models.loftq import refuse_over_few_bits
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.tuning import Adapter

if TYPE_CHECKING:
    from peft import PeftModel

SAME = (
    "peft_type",
    "r",
    "init_r",
    "lora_alpha",
    "alpha",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "use_dora",
    "trainable_token_indices",
    "feedforward_modules",
    "oft_block_size",
    "use_cayley_neumann",
)
"""What must be the same for weights to mean the same, as PEFT calls it."""


def find_start(recipe: Recipe) -> Path | None:
    """Find the folder of the adapter that training goes on from; None if it begins anew.

    Raises:
        RecipeError: if there is no adapter of that name.
    """
    tuning = recipe.tuning
    if not isinstance(tuning, Adapter) or tuning.from_adapter is None:
        return None
    return find_adapter(tuning.from_adapter, "tuning.from_adapter")


def check_start(adapted: PeftModel, folder: Path, base: Path, beneath: Beneath = NOTHING) -> None:
    """Refuse an adapter of another kind, shape or base than the one that is to be trained.

    Args:
        adapted: may hold no numbers.
        beneath: what was changed of the base before.

    Raises:
        RecipeError: naming what differs, as PEFT calls it.
        ModelError: if a tensor does not fit, or it was trained on another base.
    """
    refuse_over_few_bits(folder, "tuning.from_adapter")
    stored = read_config(folder / ADAPTER)
    if stored.get("init_lora_weights") not in (True, False, None, "gaussian", "orthogonal"):
        raise RecipeError(
            f"the adapter began as {stored['init_lora_weights']} and belongs to what was left of "
            "the base, not to the base",
            hint="save it anew as a plain adapter, with the tool that trained it",
            where="tuning.from_adapter",
        )
    ours = adapted.peft_config["default"].to_dict()
    for name in SAME:
        theirs, wanted = _plain(stored.get(name)), _plain(ours.get(name))
        if theirs != wanted:
            raise RecipeError(
                f"the adapter has another {name}: {theirs}, not {wanted}",
                hint="write the options of tuning that it was trained with",
                where="tuning.from_adapter",
            )
    if (folder / BELONGS_TO).is_file():  # others than ours do not say
        check_base(folder, base, beneath=beneath)
    check_fit(adapted, folder)


def _plain(value: Any) -> Any:
    """Spell what PEFT calls nothing in several ways in one, and sets as lists."""
    if isinstance(value, set | list | tuple):
        return sorted(value) or None
    return (value.value if isinstance(value, Enum) else value) or None
