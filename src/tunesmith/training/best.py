"""Which weights of a run were the best, by a held-out loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.recipe.options import Recipe


def best_step(history: list[dict[str, Any]], watched: str) -> int | None:
    """Find the step of the lowest held-out loss, by the name of the measure, in a Trainer's log."""
    measured = [(entry[watched], entry["step"]) for entry in history if watched in entry]
    return int(min(measured)[1]) if measured else None


def stopped_early(recipe: Recipe, history: list[dict[str, Any]]) -> bool:
    """Whether as many evaluations as the recipe waits for brought no better held-out loss."""
    patience = recipe.optimizer.early_stopping
    steps = [entry["step"] for entry in history if "eval_loss" in entry]
    best = best_step(history, recipe.evaluate.watched)
    return patience > 0 and best is not None and len(steps) - 1 - steps.index(best) >= patience


def named_losses(record: Mapping[str, Any]) -> dict[str, str]:
    """List the measures that are losses of single held-out sets, with the names of the sets."""
    spelled = ((key, key.removeprefix("eval_").removesuffix("_loss")) for key in record)
    return {key: name for key, name in spelled if key == f"eval_{name}_loss"}
