"""Contrastive preference optimization: as dpo from a reference that finds all answers alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.pairs import PairMethod, add_sft, say, sum_pairs
from tunesmith.recipe.method import CPO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class CPOMethod(PairMethod):
    """The loss on log-probabilities with a next-token loss, no reference (arXiv:2401.08417)."""

    options: CPO

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the pairs of a batch."""
        options, said = self.options, say(model, batch)
        rewards = options.beta * said.logps
        summed = sum_pairs(cpo_loss(rewards, smoothing=options.label_smoothing), rewards, said)
        return add_sft(summed, said, options.sft_weight)


def cpo_loss(rewards: torch.Tensor, *, smoothing: float = 0.0) -> torch.Tensor:
    """Compute -log sigmoid(difference of rewards), the preference part of arXiv:2401.08417.

    Args:
        rewards: beta * log p in nats, of the preferred and the rejected answer, [pairs, 2].
        smoothing: share of pairs that are taken to be the wrong way round, 0 to 0.5.

    Returns:
        Nats, [pairs].
    """
    from torch.nn.functional import logsigmoid

    gain = rewards[:, 0] - rewards[:, 1]
    return -(1 - smoothing) * logsigmoid(gain) - smoothing * logsigmoid(-gain)
