"""Odds ratio preference optimization: imitate the preferred answer, lower the other's odds."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.pairs import PairMethod, add_sft, say, sum_pairs
from tunesmith.recipe.method import ORPO

if TYPE_CHECKING:
    import torch

SURE = -1e-12
"""A larger mean log p counts as this: odds of certainty are infinite."""


@dataclass(frozen=True)
class ORPOMethod(PairMethod):
    """Next-token loss and odds ratio on pairs of answers, no reference (arXiv:2403.07691)."""

    options: ORPO

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the pairs of a batch."""
        said = say(model, batch)
        odds = log_odds(said.means)
        losses = odds_ratio_loss(odds, beta=self.options.beta)
        summed = add_sft(sum_pairs(losses, self.options.beta * said.means, said), said, 1.0)
        gain = (odds[:, 0] - odds[:, 1]).detach().sum()
        return replace(summed, measures={**summed.measures, "log_odds_ratio": gain})


def log_odds(means: torch.Tensor) -> torch.Tensor:
    """Compute log(p / (1 - p)), where log p is the mean over an answer's tokens.

    Args:
        means: nats a token, any shape.
    """
    import torch

    means = means.clamp(max=SURE)
    return means - torch.log(-torch.expm1(means))


def odds_ratio_loss(odds: torch.Tensor, *, beta: float) -> torch.Tensor:
    """Compute the second part of equation 6 of arXiv:2403.07691, whose first is the sft loss.

    Args:
        odds: log odds of the preferred and the rejected answer, [pairs, 2].
        beta: how much the odds count beside the sft loss, > 0; lambda in the paper.

    Returns:
        Nats, [pairs]; beta * log 2 for equal odds.
    """
    from torch.nn.functional import logsigmoid

    return -beta * logsigmoid(odds[:, 0] - odds[:, 1])
