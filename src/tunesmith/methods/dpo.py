"""Direct preference optimization: raise the preferred answer above the rejected one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import join
from tunesmith.methods.learned import answer_logps
from tunesmith.methods.method import Batch, Joining, LossSum, Row
from tunesmith.recipe.method import DPO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DPOMethod:
    """The sigmoid loss on pairs of answers (arXiv:2305.18290)."""

    options: DPO

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(kind="preference", history=False)

    @property
    def needs_reference(self) -> bool:
        """Whether rows carry what the model said of them before training."""
        return True

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch, and what a reference said of them, if it did, [rows, 2]."""
        import torch

        batch = join(rows, how)
        if "reference" not in rows[0]:
            return batch
        reference = torch.tensor([row["reference"] for row in rows], dtype=torch.float64)
        return {**batch, "reference": reference}

    def count(self, batch: Batch) -> int:
        """Count the pairs of a batch."""
        return int(batch["num_answers"]) // 2

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the pairs of a batch."""
        found = answer_logps(model, batch)
        rewards = self.options.beta * (found - batch["reference"])
        losses = dpo_loss(rewards)
        chosen, rejected = rewards.detach().unbind(dim=1)
        measures = {
            "rewards_chosen": chosen.sum(),
            "rewards_rejected": rejected.sum(),
            "rewards_margin": (chosen - rejected).sum(),
            "rewards_accuracy": (chosen > rejected).float().sum(),
            "logps_chosen": found.detach()[:, 0].sum(),
            "logps_rejected": found.detach()[:, 1].sum(),
        }
        return LossSum(losses.sum().float(), len(losses), measures)


def dpo_loss(rewards: torch.Tensor) -> torch.Tensor:
    """Compute -log sigmoid(reward of the preferred answer - reward of the rejected one).

    Args:
        rewards: beta * log(p / p of the reference) of each answer, [pairs, 2].

    Returns:
        Nats, [pairs].
    """
    from torch.nn.functional import logsigmoid

    return -logsigmoid(rewards[:, 0] - rewards[:, 1])
