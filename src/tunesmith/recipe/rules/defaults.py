"""What a rule asks of an option."""

from __future__ import annotations

from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import spell


def has_default(recipe: Recipe, option: str) -> bool:
    """Whether an option has its default value; a run's recipe writes all of them out."""
    section, name = option.split(".")
    chosen = dict(recipe)[section]
    default = type(chosen).model_fields[name].get_default(call_default_factory=True)
    return spell(chosen.model_dump()[name]) == spell(default)
