"""What each token of an answer gained beyond what was expected, and numbers made comparable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

LEAST_VARIANCE = 1e-8
"""Added to a variance, so that numbers that are all alike can be divided by its root."""


def gained(
    rewards: torch.Tensor, values: torch.Tensor, *, gamma: float, gae_lambda: float
) -> torch.Tensor:
    """Estimate the advantage of each token over what was expected before it.

    Equations 11, 12 and 16 of arXiv:1506.02438.

    Args:
        rewards: of each token, 0 behind the end, [answers, tokens].
        values: expected before each token, 0 behind the end, [answers, tokens].
        gamma: what a reward is worth one token later, 0 to 1.
        gae_lambda: how far rewards are followed before values are trusted, 0 to 1.

    Returns:
        [answers, tokens], 0 behind the end; with the values added, what was to be expected.
    """
    import torch

    found = torch.zeros_like(rewards)
    later = following = rewards.new_zeros(len(rewards))
    for token in reversed(range(rewards.shape[1])):
        surprise = rewards[:, token] + gamma * following - values[:, token]
        later = surprise + gamma * gae_lambda * later
        following = values[:, token]
        found[:, token] = later
    return found


@dataclass(frozen=True)
class Moments:
    """Count, mean and summed squared deviations of numbers.

    Sums over parts follow Chan, Golub and LeVeque (1983).
    """

    count: float = 0.0
    mean: float = 0.0
    squares: float = 0.0

    @property
    def variance(self) -> float:
        """Estimate the variance of what the numbers were drawn from; 0 for a single one."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0

    @property
    def deviation(self) -> float:
        """Estimate the standard deviation."""
        return float(self.variance**0.5)

    def __add__(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not count:
            return self
        apart = other.mean - self.mean
        mean = self.mean + apart * other.count / count
        between = apart**2 * self.count * other.count / count
        return Moments(count, mean, self.squares + other.squares + between)


def moments_of(numbers: torch.Tensor, ranks: Ranks = ALONE) -> Moments:
    """Describe numbers of all processes; every process asks, those without numbers too."""
    known = numbers.double()
    sums = ranks.totals({"count": float(known.numel()), "sum": float(known.sum())})
    mean = sums["sum"] / sums["count"] if sums["count"] else 0.0
    squares = ranks.totals({"squares": float((known - mean).square().sum())})["squares"]
    return Moments(sums["count"], mean, squares)


def whiten(numbers: torch.Tensor, moments: Moments, *, keep_mean: bool = False) -> torch.Tensor:
    """Give numbers a variance of 1, and a mean of 0 unless it is kept."""
    deviation = float((moments.variance + LEAST_VARIANCE) ** 0.5)
    whitened: torch.Tensor = (numbers - moments.mean) / deviation
    return whitened + moments.mean if keep_mean else whitened
