"""Simple preference optimization: raise the preferred answer's mean log p by a margin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.pairs import PairMethod, say, sum_pairs
from tunesmith.recipe.method import SimPO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SimPOMethod(PairMethod):
    """The loss on mean log-probabilities with a margin, no reference (arXiv:2405.14734)."""

    options: SimPO

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the pairs of a batch."""
        said = say(model, batch)
        rewards = self.options.beta * said.means
        return sum_pairs(simpo_loss(rewards, gamma=self.options.gamma), rewards, said)


def simpo_loss(rewards: torch.Tensor, *, gamma: float) -> torch.Tensor:
    """Ask that the preferred answer's reward is larger by a margin; equation 6 of arXiv:2405.14734.

    Args:
        rewards: beta * log p in nats a token, of the preferred and the rejected answer, [pairs, 2].
        gamma: the margin, in the units of rewards, >= 0.

    Returns:
        Nats, [pairs].
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(rewards[:, 0] - rewards[:, 1] - gamma)
