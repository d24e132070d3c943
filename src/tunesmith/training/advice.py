"""Read the curves of a run as somebody with experience would, and say what to try next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["diverged", "overfits", "falling", "slow", "settled", "short"]
FEWEST_POINTS = 10
"""With fewer losses than this, noise says as much as the curve."""
WINDOW_SHARE = 0.15
RISE, WORSE, FALL, SLOW = 1.3, 1.02, 0.03, 0.05
TOLD_APART = 0.6
MOSTLY = 0.7
LOST = 0.2
"""Share of what was gained that a diverged run has lost again."""


@dataclass(frozen=True)
class Advice:
    """What was seen in the curves and what to do about it.

    Attributes:
        step: the step it is about, if it is about one.
    """

    kind: Kind
    seen: str
    do: str
    step: int | None = None


def advise(metrics: Sequence[dict[str, Any]]) -> list[Advice]:
    """Look at the losses of a run; the most important advice first, at least one."""
    losses = [
        (int(record["step"]), float(record["loss"])) for record in metrics if "loss" in record
    ]
    held_out = [
        (int(record["step"]), float(record["eval_loss"]))
        for record in metrics
        if "eval_loss" in record
    ]
    found = [_overfits(held_out)]
    rewards = [float(record["reward"]) for record in metrics if "reward" in record]
    if len(rewards) >= FEWEST_POINTS:
        return [_rewarded(rewards, metrics)]
    if len(losses) < FEWEST_POINTS:
        short = Advice(
            "short",
            f"only {len(losses)} losses were logged, too few to read a curve from",
            "train longer (run.epochs) or log more often (run.log_every_steps: 1)",
        )
        return [advice for advice in found if advice] or [short]
    start, before, end = _windows([loss for _, loss in losses])
    found = [_diverged(losses, start), *found]
    paired = any("rewards_accuracy" in record for record in metrics)
    if not any(found) and paired:
        return [_preferred(metrics)]
    if not any(found):
        found += [_slow(start, end), _falling(before, end)]
    settled = Advice(
        "settled",
        f"the loss fell from {start:.3f} to {end:.3f} and has settled",
        "evaluate the run; more of the same data will change little",
    )
    return [advice for advice in found if advice] or [settled]


def _windows(losses: list[float]) -> tuple[float, float, float]:
    """Average the first losses, the ones before the last, and the last."""
    size = _window(losses)
    return (
        _mean(losses[:size]),
        _mean(losses[-2 * size : -size] or losses[:size]),
        _mean(losses[-size:]),
    )


def _window(losses: Sequence[object]) -> int:
    return max(2, round(len(losses) * WINDOW_SHARE))


def _diverged(losses: list[tuple[int, float]], start: float) -> Advice | None:
    """See a loss that rose again for good: averages are compared, since single losses jump."""
    size = _window(losses)
    means = [
        _mean([loss for _, loss in losses[at : at + size]]) for at in range(len(losses) - size + 1)
    ]
    least, end = min(means), means[-1]
    if end <= least * RISE or end - least <= (start - least) * LOST:
        return None
    step = losses[means.index(least) + size - 1][0]
    return Advice(
        "diverged",
        f"the loss rose from {least:.3f} about step {step} to {end:.3f} at the end: it diverged",
        "lower optimizer.learning_rate to a third and train again",
        step,
    )


def _overfits(held_out: list[tuple[int, float]]) -> Advice | None:
    if len(held_out) < 2:
        return None
    step, least = min(held_out, key=lambda pair: pair[1])
    last = held_out[-1][1]
    if last <= least * WORSE:
        return None
    return Advice(
        "overfits",
        f"the held-out loss was best at step {step} ({least:.3f}) and rose to {last:.3f}: "
        "from there on the run learned its rows by heart",
        f"use the checkpoint of step {step}, train fewer epochs, or set optimizer.early_stopping",
        step,
    )


def _slow(start: float, end: float) -> Advice | None:
    if end < start * (1 - SLOW):
        return None
    return Advice(
        "slow",
        f"the loss hardly moved, from {start:.3f} to {end:.3f}: it falls too slowly",
        "raise optimizer.learning_rate three times and train again",
    )


def _preferred(metrics: Sequence[dict[str, Any]]) -> Advice:
    """Judge by how many rows are told apart; how far their loss falls says little."""
    shares = [record["rewards_accuracy"] for record in metrics if "rewards_accuracy" in record]
    share = _mean(shares[-_window(shares) :])
    judged = any("kl" in record for record in metrics)
    rows = "rows were on the right side" if judged else "pairs were told apart"
    seen = f"at the end {share:.0%} of the {rows}"
    if share < TOLD_APART:
        return Advice("slow", seen, "raise optimizer.learning_rate, or look at the rows")
    return Advice("settled", seen, "evaluate the run; much more drives the model from its manner")


def _rewarded(rewards: list[float], metrics: Sequence[dict[str, Any]]) -> Advice:
    """Judge by the rewards alone: the loss of what was written just now is next to nothing."""
    start, _, end = _windows(rewards)
    flat = [record["flat_groups"] for record in metrics if "flat_groups" in record]
    alike = _mean(flat[-_window(flat) :]) if flat else 0.0
    seen = f"the reward went from {start:.3f} to {end:.3f}"
    if alike > MOSTLY and end <= start + FALL * max(abs(start), 1.0):
        return Advice(
            "slow",
            f"{seen}; {alike:.0%} of the groups were rewarded alike, so that nothing told them "
            "apart",
            "give rewards that tell answers apart, or questions that are neither too hard nor too "
            "easy; or raise method.group_size or temperature",
        )
    if end <= start + FALL * max(abs(start), 1.0):
        return Advice("slow", seen, "raise optimizer.learning_rate, or look at the rewards")
    return Advice("settled", seen, "read its answers before you trust the figure")


def _falling(before: float, end: float) -> Advice | None:
    if end > before * (1 - FALL):
        return None
    return Advice(
        "falling",
        f"the loss was still falling at the end, from {before:.3f} to {end:.3f}",
        "train more epochs (run.epochs)",
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
