"""Which measurement of a run was its best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.recipe.options import Recipe


def held_out_figure(record: Mapping[str, Any]) -> float | None:
    """Return what a run is measured by, lower is better: held-out loss, or a reward, negated."""
    if "eval_loss" in record:
        return float(record["eval_loss"])
    return -float(record["eval_reward"]) if "eval_reward" in record else None


def best_step(history: Sequence[Mapping[str, Any]]) -> int | None:
    """Find the step of the lowest held-out loss, or highest reward, in a Trainer's log."""
    measured = _measured(history)
    return min(measured)[1] if measured else None


def stopped_early(recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether as many evaluations as the recipe waits for brought nothing better."""
    patience = recipe.optimizer.early_stopping
    steps = [step for _, step in _measured(history)]
    best = best_step(history)
    return patience > 0 and best is not None and len(steps) - 1 - steps.index(best) >= patience


def _measured(history: Sequence[Mapping[str, Any]]) -> list[tuple[float, int]]:
    figures = ((held_out_figure(entry), entry) for entry in history)
    return [(figure, int(entry["step"])) for figure, entry in figures if figure is not None]
