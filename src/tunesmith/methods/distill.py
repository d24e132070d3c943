"""Knowledge distillation: learn what a larger model expects at each token of the answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from tunesmith.methods.answers import AnswerMethod
from tunesmith.methods.beside import ask_other
from tunesmith.methods.divergence import divergences
from tunesmith.methods.learned import predict
from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.next_token import next_token_loss
from tunesmith.recipe.method import Distill

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class DistillMethod(AnswerMethod):
    """Next-token loss and divergence from a teacher on the answers of conversations.

    The answers are those of the rows: off-policy, as in arXiv:1503.02531.

    Attributes:
        teacher: None where a model is only measured without it.
    """

    options: Distill
    teacher: torch.nn.Module | None = None

    def beside(self, other: torch.nn.Module | None) -> DistillMethod:
        """Take the teacher."""
        return replace(self, teacher=other)

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the learned tokens of a batch.

        Rows that are only measured get the plain next-token loss, and the divergence beside it.
        """
        from tunesmith.models.compared import Terms

        options = self.options
        if self.teacher is None:
            return next_token_loss(model, batch)
        other = ask_other(self.teacher, batch)
        compare = partial(divergences, beta=options.beta, temperature=options.temperature)
        share = options.teacher_weight
        terms = Terms(compare, imitation=1.0 - share, distance=share)
        sums = predict(model, batch).compared_loss(other, terms)
        measures = {"divergence": sums.distance}
        if not model.training:
            return LossSum(sums.imitation, self.count(batch), measures)
        measures["next_token_loss"] = sums.imitation
        return LossSum(sums.total, self.count(batch), measures)
