"""Right answers counted by subject and category, with how sure the share is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True)
class Tally:
    """What was reached on some questions.

    Attributes:
        accuracy: share of right answers, 0 to 1.
        low, high: Wilson's interval, which holds the true share 95 times in 100.
    """

    name: str
    num_questions: int
    num_right: int
    accuracy: float
    low: float
    high: float


def count(name: str, right: Sequence[bool]) -> Tally:
    """Count right answers."""
    num_right = sum(right)
    low, high = wilson(num_right, len(right))
    return Tally(name, len(right), num_right, num_right / len(right), low, high)


def wilson(num_right: int, count: int, z: float = Z_95) -> tuple[float, float]:
    """Bound the true share of right answers (Wilson 1927).

    Unlike the usual share plus and minus, the bounds stay within 0 and 1 and hold for few answers.

    Args:
        z: standard deviations on each side; 1.96 for 95 %.
    """
    share = num_right / count
    spread = z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z * math.sqrt(share * (1 - share) / count + spread / (4 * count)) / (1 + spread)
    low = 0.0 if num_right == 0 else middle - half
    high = 1.0 if num_right == count else middle + half
    return low, high
