"""Defaults: whether an option has its own, and those that depend on other options."""

from __future__ import annotations

from tunesmith.recipe.method import Online, Preference
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import spell

WHOLE = ("full", "freeze")
"""Ways to tune that move weights themselves, by small steps."""


def has_default(recipe: Recipe, option: str) -> bool:
    """Whether an option has its default value; a run's recipe writes all of them out."""
    section, name = option.split(".")
    chosen = dict(recipe)[section]
    default = type(chosen).model_fields[name].get_default(call_default_factory=True)
    return spell(chosen.model_dump()[name]) == spell(default)


def fill_defaults(recipe: Recipe) -> Recipe:
    """Write in the learning rate of preferences and rewards, smaller steps, if none was chosen."""
    optimizer, method = recipe.optimizer, recipe.method
    small = isinstance(method, Preference | Online)
    if not small or "learning_rate" in optimizer.model_fields_set:
        return recipe
    rate = {"learning_rate": usual_rate(recipe.method.name, recipe.tuning.kind)}
    return recipe.model_copy(update={"optimizer": optimizer.model_copy(update=rate)})


def usual_rate(method: str, tuning: str) -> float:
    """Choose a usual learning rate; preferences and rewards are learned in small steps."""
    if method == "reward":
        return 1e-5 if tuning in WHOLE else 1e-4
    if method in ("sft", "pretrain", "distill", "classify"):
        return 2e-5 if tuning in WHOLE else 2e-4
    return 5e-6 if tuning in WHOLE else 5e-5
