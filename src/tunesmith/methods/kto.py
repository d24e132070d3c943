"""Kahneman-Tversky optimization: raise answers judged good, and lower those judged bad."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import join, to_device
from tunesmith.methods.learned import summed_logps
from tunesmith.methods.method import Batch, Joining, LossSum, Method, Row
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.recipe.method import KTO

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class KTOMethod(Method):
    """The loss on single answers with a label, measured from a reference (arXiv:2402.01306)."""

    options: KTO

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(kind="judged", history=False)

    @property
    def needs_reference(self) -> bool:
        """Whether rows carry what the model said of them before training."""
        return True

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch, and the same questions with other rows' answers into another.

        Returns:
            what `join` does; mismatched, likewise; good, [rows]; and reference, if it was asked, of
            the answer and of the other row's answer, [rows, 2].
        """
        import torch

        batch = join(rows, how)
        others = join([row["mismatched"] for row in rows], how)
        shown = {"shown": batch["shown"]} if "shown" in batch else {}  # by the same questions
        batch["mismatched"] = others | shown
        batch["good"] = torch.tensor([row["good"] for row in rows])
        if "reference" in rows[0]:
            known = [row["reference"] for row in rows]
            batch["reference"] = torch.tensor(known, dtype=torch.float64)
        return batch

    def count(self, batch: Batch) -> int:
        """Count the rows of a batch."""
        return int(batch["num_answers"])

    def logps(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Sum log p over the answer of each row, and over the other row's answer, [rows, 2]."""
        import torch

        given = batch, batch["mismatched"]
        return torch.stack([summed_logps(model, each) for each in given], dim=1)

    def look_ahead(
        self, model: torch.nn.Module, batches: Iterable[Batch], ranks: Ranks = ALONE
    ) -> Batch:
        """Estimate how far the model has gone from the reference, from answers to other questions.

        Returns:
            kl: nats, >= 0; the same for all rows of an update, without gradient.
        """
        import torch

        device = next(model.parameters()).device
        gained = torch.zeros(2, dtype=torch.float64, device=device)  # summed, and of how many
        with torch.no_grad():
            for batch in batches:
                here = to_device(batch, device)
                known = here["reference"][:, 1]
                gained[0] += (summed_logps(model, here["mismatched"]) - known).sum()
                gained[1] += len(known)
        total, count = ranks.total(gained)
        return {"kl": (total / count.clamp(min=1)).clamp(min=0.0)}

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the rows of a batch."""
        options, good, kl = self.options, batch["good"], batch["kl"]
        logps = summed_logps(model, batch)
        ratios = logps - batch["reference"][:, 0]
        weights = good * options.desirable_weight + ~good * options.undesirable_weight
        losses = weights * kto_losses(ratios, good, kl, beta=options.beta)
        rewards = options.beta * ratios.detach()
        right = (ratios.detach() > kl) == good
        measures = {"rewards_accuracy": right.float().sum(), "kl": kl * len(good)}
        counts = {}
        for name, mine in (("chosen", good), ("rejected", ~good)):
            for what, values in (("rewards", rewards), ("logps", logps.detach())):
                measures[f"{what}_{name}"] = values[mine].sum()
                counts[f"{what}_{name}"] = mine.sum()
        return LossSum(losses.sum().float(), len(good), measures, counts)


def kto_losses(
    ratios: torch.Tensor, good: torch.Tensor, kl: torch.Tensor, *, beta: float
) -> torch.Tensor:
    """Compare how far each answer has come from the reference with how far answers come at all.

    Equations 7 and 8 of arXiv:2402.01306, each row weighted alike.

    Args:
        ratios: log(p / p of the reference) of each answer, in nats, [rows].
        good: whether it was judged good, [rows].
        kl: the same of answers at large, in nats, >= 0; carries no gradient.
        beta: strength of the pull to the reference, > 0.

    Returns:
        Loss of each row, 0 to 1, [rows]; a half where nothing has moved.
    """
    import torch

    gain = beta * (ratios - kl)
    return torch.sigmoid(torch.where(good, -gain, gain))
