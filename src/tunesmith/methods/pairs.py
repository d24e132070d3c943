"""What methods that learn from pairs of answers share: their rows, and what is watched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import join
from tunesmith.methods.learned import answer_lengths, answer_logps
from tunesmith.methods.method import Batch, Joining, LossSum, Method, Row

if TYPE_CHECKING:
    import torch


class PairMethod(Method):
    """A method whose rows are a question with two answers."""

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(kind="preference", history=False)

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

    def logps(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Sum log p over both answers of each row, [rows, 2]."""
        return answer_logps(model, batch)


@dataclass(frozen=True)
class Said:
    """What a model says of the preferred and the rejected answer of each pair, in fp64.

    Attributes:
        logps: log p in nats, summed over the learned tokens, [pairs, 2].
        lengths: how many these are, [pairs, 2].
    """

    logps: torch.Tensor
    lengths: torch.Tensor

    @property
    def means(self) -> torch.Tensor:
        """Log p in nats a token, [pairs, 2]."""
        return self.logps / self.lengths

    @property
    def sft_losses(self) -> torch.Tensor:
        """Next-token loss of the preferred answer in nats a token, [pairs]."""
        return -self.means[:, 0]


def say(model: torch.nn.Module, batch: Batch) -> Said:
    """Run a model over pairs."""
    return Said(answer_logps(model, batch), answer_lengths(batch).double())


def sum_pairs(losses: torch.Tensor, rewards: torch.Tensor, said: Said | None = None) -> LossSum:
    """Sum the losses of pairs, and what is watched of them.

    Args:
        losses: nats, [pairs].
        rewards: what the loss compares, of the preferred and the rejected answer, [pairs, 2].
        said: what the model says of the answers, where that is known.
    """
    chosen, rejected = rewards.detach().unbind(dim=1)
    measures = {
        "rewards_chosen": chosen.sum(),
        "rewards_rejected": rejected.sum(),
        "rewards_margin": (chosen - rejected).sum(),
        "rewards_accuracy": (chosen > rejected).float().sum(),
    }
    if said is not None:
        logps = said.logps.detach()
        measures |= {"logps_chosen": logps[:, 0].sum(), "logps_rejected": logps[:, 1].sum()}
    return LossSum(losses.sum().float(), len(losses), measures)


def add_sft(summed: LossSum, said: Said, weight: float) -> LossSum:
    """Add the next-token loss of the preferred answers, each averaged over its own tokens.

    As in arXiv:2404.19733, equation 1.

    Args:
        weight: how much it counts, >= 0; 0 adds nothing.
    """
    if not weight:
        return summed
    sft = said.sft_losses.sum()
    measures = {**summed.measures, "sft_loss": sft.detach()}
    return LossSum(summed.total + (weight * sft).float(), summed.count, measures)
