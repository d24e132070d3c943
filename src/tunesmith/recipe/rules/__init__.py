"""Rules across the sections of a recipe, one function each; options without effect are errors."""

from __future__ import annotations

from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules import adapters, few_bits, methods, optimizers, run, weights

RULES = (
    *run.RULES,
    *weights.RULES,
    *few_bits.RULES,
    *adapters.RULES,
    *methods.RULES,
    *optimizers.RULES,
)


def check_rules(recipe: Recipe) -> None:
    """Refuse a recipe whose sections contradict each other.

    Raises:
        RecipeError: naming the option.
    """
    for rule in RULES:
        rule(recipe)
