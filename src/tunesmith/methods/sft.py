"""Supervised fine-tuning: imitate the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from tunesmith.methods.answers import AnswerMethod
from tunesmith.methods.beside import ask_before, ask_other
from tunesmith.methods.divergence import divergences
from tunesmith.methods.learned import predict
from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.next_token import next_token_loss
from tunesmith.methods.sft_losses import entropy_weights, probability_weights
from tunesmith.recipe.method import SFT

if TYPE_CHECKING:
    import torch

    from tunesmith.models.head import Weighing


@dataclass(frozen=True)
class SFTMethod(AnswerMethod):
    """Next-token loss on the answers of conversations.

    Attributes:
        before: a copy of the model before training; None where an adapter can be switched off.
    """

    options: SFT
    before: torch.nn.Module | None = None

    def beside(self, other: torch.nn.Module | None) -> SFTMethod:
        """Take the model before training, if it is another one."""
        return replace(self, before=other)

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the learned tokens of a batch.

        Rows that are only measured get the plain next-token loss, whatever is trained by.
        """
        options = self.options
        if options.loss == "asft" and model.training:
            return self._anchored(model, batch)
        return next_token_loss(
            model,
            batch,
            noise=options.neftune_alpha,
            smoothing=options.label_smoothing,
            weigh=self._weighing(),
        )

    def _weighing(self) -> Weighing | None:
        options = self.options
        if options.loss == "eaft":
            return partial(entropy_weights, power=options.entropy_power)
        return None if options.loss == "nll" else probability_weights

    def _anchored(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Add the divergence from the model before training (ASFT, arXiv:2509.23753)."""
        from tunesmith.models.compared import Terms

        before = self.before
        other = ask_before(model, batch) if before is None else ask_other(before, batch)
        found = predict(model, batch, noise=self.options.neftune_alpha)
        terms = Terms(divergences, imitation=1.0, distance=self.options.anchor_weight)
        sums = found.compared_loss(other, terms, self._weighing())
        return LossSum(sums.total, self.count(batch), {"divergence": sums.distance})
