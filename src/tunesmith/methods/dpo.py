"""Direct preference optimization: raise the preferred answer above the rejected one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.pairs import PairMethod, add_sft, say, sum_pairs
from tunesmith.recipe.method import DPO, PairLoss

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DPOMethod(PairMethod):
    """The loss on pairs of answers, measured from a reference (arXiv:2305.18290)."""

    options: DPO

    @property
    def needs_reference(self) -> bool:
        """Whether rows carry what a reference says of them."""
        return self.options.reference != "none"

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the pairs of a batch."""
        options, said = self.options, say(model, batch)
        ratios = said.logps - batch["reference"] if self.needs_reference else said.logps
        if options.length_normalize or options.loss == "ipo":
            ratios = ratios / said.lengths
        losses = dpo_loss(
            ratios, loss=options.loss, beta=options.beta, smoothing=options.label_smoothing
        )
        summed = sum_pairs(losses, options.beta * ratios, said)
        return add_sft(summed, said, options.sft_weight)


def dpo_loss(
    ratios: torch.Tensor, *, loss: PairLoss, beta: float, smoothing: float = 0.0
) -> torch.Tensor:
    """Compare how far both answers of each pair have come from the reference.

    `sigmoid` is equation 7 of arXiv:2305.18290, mixed with its mirror image where labels are wrong
    at times; `hinge` is from arXiv:2305.10425; `ipo` is equation 17 of arXiv:2310.12036, a token;
    `robust` is from arXiv:2403.00409.

    Args:
        ratios: log(p / p of the reference) of the preferred and the rejected answer, in nats, or
            in nats a token, as ipo takes them, [pairs, 2].
        beta: strength of the pull to the reference, > 0; tau for ipo.
        smoothing: share of pairs that are taken to be the wrong way round, 0 to 0.5.

    Returns:
        Loss of each pair, [pairs]; log 2 for sigmoid and robust where nothing has moved.
    """
    from torch.nn.functional import logsigmoid, relu

    gain = ratios[:, 0] - ratios[:, 1]
    if loss == "ipo":
        return (gain - 1 / (2 * beta)) ** 2
    if loss == "hinge":
        return relu(1 - beta * gain)
    right, wrong = -logsigmoid(beta * gain), -logsigmoid(-beta * gain)
    if loss == "robust":
        return ((1 - smoothing) * right - smoothing * wrong) / (1 - 2 * smoothing)
    return (1 - smoothing) * right + smoothing * wrong
