"""Draw the curves of a run."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.training.best import named_losses

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SMOOTH = 0.9
"""How much of the past a smoothed loss keeps."""
MANY_POINTS = 20
UNITS = {"rewards_accuracy": "pair", "accuracy": "row"}
"""What the loss is averaged over, by what is measured beside it."""


def draw_curves(metrics: Sequence[dict[str, Any]]) -> bytes:
    """Draw loss, held-out loss, learning rate and speed over the steps, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplot_mosaic([["loss", "loss"], ["rate", "speed"]], height_ratios=[2, 1])
    draw = _draw_reward if any("reward" in record for record in metrics) else _draw_loss
    draw(axes["loss"], metrics)
    _draw_one(axes["rate"], metrics, "learning_rate", "learning rate")
    _draw_one(axes["speed"], metrics, "tokens_per_second", "tokens a second")
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def draw_one_curve(metrics: Sequence[dict[str, Any]], name: str) -> bytes:
    """Draw one figure over the steps, as it is and smoothed, as a PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    axes = figure.add_subplot()
    steps, values = _series(metrics, name)
    axes.plot(steps, values, color="tab:blue", alpha=0.4, label="original")
    axes.plot(steps, smooth(values), color="tab:blue", label="smoothed")
    axes.set(xlabel="step", ylabel=name)
    axes.legend()
    content = io.BytesIO()
    FigureCanvasAgg(figure).print_png(content)
    return content.getvalue()


def _draw_loss(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    steps, losses = _series(metrics, "loss")
    many = len(losses) >= MANY_POINTS
    axes.plot(steps, losses, color="tab:blue", alpha=0.35 if many else 1, label="loss")
    if many:
        axes.plot(steps, smooth(losses), color="tab:blue", label="loss, smoothed")
    held_steps, held_out = _series(metrics, "eval_loss")
    if held_out:
        axes.plot(held_steps, held_out, "o-", color="tab:orange", label="held-out loss")
    named = {key: name for record in metrics for key, name in named_losses(record).items()}
    for key, name in named.items():
        axes.plot(*_series(metrics, key), ".--", alpha=0.7, label=f"held-out loss of {name}")
    over = [name for name in UNITS if any(name in record for record in metrics)]
    axes.set_ylabel(f"nats a {UNITS[over[0]] if over else 'token'}")
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_reward(axes: Axes, metrics: Sequence[dict[str, Any]]) -> None:
    steps, rewards = _series(metrics, "reward")
    axes.plot(steps, rewards, color="tab:blue", alpha=0.35, label="reward")
    axes.plot(steps, smooth(rewards), color="tab:blue", label="reward, smoothed")
    held_steps, held_out = _series(metrics, "eval_reward")
    if held_out:
        axes.plot(held_steps, held_out, "o-", color="tab:orange", label="held-out reward")
    axes.set(xlabel="step", ylabel="reward an answer")
    axes.grid(alpha=0.3)
    axes.legend()


def _draw_one(axes: Axes, metrics: Sequence[dict[str, Any]], name: str, title: str) -> None:
    axes.plot(*_series(metrics, name), color="tab:gray")
    axes.set_title(title, fontsize=9)
    axes.grid(alpha=0.3)


def _series(metrics: Sequence[dict[str, Any]], name: str) -> tuple[list[int], list[float]]:
    found = [(int(record["step"]), float(record[name])) for record in metrics if name in record]
    return [step for step, _ in found], [value for _, value in found]


def smooth(values: Sequence[float]) -> list[float]:
    """Average exponentially, without the usual pull of the first value."""
    smoothed: list[float] = []
    total = weight = 0.0
    for value in values:
        total = SMOOTH * total + (1 - SMOOTH) * value
        weight = SMOOTH * weight + (1 - SMOOTH)
        smoothed.append(total / weight)
    return smoothed
