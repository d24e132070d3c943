"""Which weights of a run were the best, by what is measured on held-out rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.recipe.options import Recipe


def held_out_figure(record: Mapping[str, Any], watched: str = "eval_loss") -> float | None:
    """Return what a run is measured by, lower is better: held-out loss, or a reward, negated."""
    reward = watched.removesuffix("loss") + "reward"
    if watched in record:
        return float(record[watched])
    return -float(record[reward]) if reward in record else None


def best_step(history: Sequence[Mapping[str, Any]], watched: str) -> int | None:
    """Find the step of the lowest held-out loss, or highest reward, in a Trainer's log.

    Args:
        watched: the name of the loss.
    """
    measured = _measured(history, watched)
    return min(measured)[1] if measured else None


def stopped_early(recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> bool:
    """Whether as many evaluations as the recipe waits for brought nothing better."""
    patience, watched = recipe.optimizer.early_stopping, recipe.evaluate.watched
    steps = [step for _, step in _measured(history, watched)]
    best = best_step(history, watched)
    return patience > 0 and best is not None and len(steps) - 1 - steps.index(best) >= patience


def named_losses(record: Mapping[str, Any]) -> dict[str, str]:
    """List the measures that are losses of single held-out sets, with the names of the sets."""
    spelled = ((key, key.removeprefix("eval_").removesuffix("_loss")) for key in record)
    return {key: name for key, name in spelled if key == f"eval_{name}_loss"}


def _measured(history: Sequence[Mapping[str, Any]], watched: str) -> list[tuple[float, int]]:
    figures = ((held_out_figure(entry, watched), entry) for entry in history)
    return [(figure, int(entry["step"])) for figure, entry in figures if figure is not None]
