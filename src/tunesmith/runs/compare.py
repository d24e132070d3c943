"""Put runs side by side: the options that differ and what came of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.runs.run import Run


@dataclass(frozen=True)
class Comparison:
    """Several runs in columns.

    Attributes:
        options: option by its dotted name, one value a run; only those that differ.
        results: figure by name, one value a run, None where a run has none.
    """

    names: list[str]
    options: dict[str, list[Any]]
    results: dict[str, list[float | None]]


def compare(runs: list[Run]) -> Comparison:
    """Compare the recipes and the losses of runs."""
    recipes = [_flatten(run.recipe().model_dump(mode="json")) for run in runs]
    names = sorted({name for recipe in recipes for name in recipe})
    options = {name: [recipe.get(name) for recipe in recipes] for name in names}
    figures = [summary(run) for run in runs]
    return Comparison(
        names=[run.name for run in runs],
        options={
            name: values
            for name, values in options.items()
            if any(value != values[0] for value in values)
        },
        results={
            name: [figure.get(name) for figure in figures]
            for name in dict.fromkeys(name for figure in figures for name in figure)
        },
    )


def summary(run: Run) -> dict[str, float | None]:
    """Read the figures that tell how a run went; of rewards and classes only if it has them."""
    records = run.metrics()

    def series(name: str) -> list[float]:
        return [record[name] for record in records if name in record]

    losses, held_out, rewards = series("loss"), series("eval_loss"), series("reward")
    speeds = [record["tokens_per_second"] for record in records if "loss" in record]
    more = {
        "first reward": rewards[:1],
        "last reward": rewards,
        "last held-out reward": series("eval_reward"),
        "last held-out accuracy": series("eval_accuracy"),
        "last held-out macro-F1": series("eval_macro_f1"),
    }
    return {
        "steps": float(max((record["step"] for record in records), default=0)),
        "first loss": losses[0] if losses else None,
        "last loss": losses[-1] if losses else None,
        "best held-out loss": min(held_out) if held_out else None,
        "last held-out loss": held_out[-1] if held_out else None,
        **{name: values[-1] for name, values in more.items() if values},
        "tokens a second": sum(speeds) / len(speeds) if speeds else None,
    }


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= _flatten(inner, f"{name}.{key}" if name else str(key))
    return flat
