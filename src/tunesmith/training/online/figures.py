"""What is watched of rollouts, summed up so that it can be averaged over processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.methods.method import LossSum, Row
from tunesmith.methods.online import num_written
from tunesmith.training.online.groups import deviation, in_groups, is_flat


def figures_of(rows: Sequence[Row], names: Sequence[str], groups_of: int = 0) -> LossSum:
    """Sum up what is watched of answers; a process may have none.

    Args:
        names: of rewards.
        groups_of: answers to each question, which are compared where there are several.
    """
    told: dict[str, Sequence[float]] = {
        "reward": [row["reward"] for row in rows],
        **{f"reward_{name}": [row["rewards"][name] for row in rows] for name in names},
        "answer_tokens": [num_written(row) for row in rows],
        "cut": [row["cut"] for row in rows],
    }
    if groups_of > 1:
        groups = in_groups(rows, groups_of)
        told["reward_deviation"] = [deviation(group) for group in groups]
        told["flat_groups"] = [is_flat(group) for group in groups]
    return sum_up(told)


def sum_up(told: Mapping[str, Sequence[float]]) -> LossSum:
    """Sum up numbers by their names, and count them."""
    import torch

    return LossSum(
        torch.zeros(()),
        0,
        {name: torch.tensor(sum(each), dtype=torch.float64) for name, each in told.items()},
        {name: torch.tensor(len(each)) for name, each in told.items()},
    )
