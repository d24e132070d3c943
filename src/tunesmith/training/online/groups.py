"""Answers to one question, which are compared with each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tunesmith.methods.method import Row

ALIKE = 1e-9
"""Rewards of a group that deviate less are all the same."""


def in_groups(rows: Sequence[Row], size: int) -> list[list[Row]]:
    """Part answers by their questions."""
    return [list(rows[start : start + size]) for start in range(0, len(rows), size)]


def deviation(group: Sequence[Row]) -> float:
    """Tell how far the rewards of a question's answers lie apart."""
    return float(np.std([row["reward"] for row in group], ddof=1))


def is_flat(group: Sequence[Row]) -> bool:
    """Whether all answers to a question are worth the same, so that none is better than others."""
    return deviation(group) < ALIKE
