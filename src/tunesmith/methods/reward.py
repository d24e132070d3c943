"""A reward model: score the preferred answer above the rejected one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.learned import model_arguments
from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.pairs import PairMethod, sum_pairs
from tunesmith.recipe.method import Reward

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class RewardMethod(PairMethod):
    """The loss on the scores of two answers (arXiv:2203.02155)."""

    options: Reward

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the pairs of a batch."""
        rewards = answer_scores(model, batch)
        losses = reward_loss(rewards, center=self.options.center_rewards)
        return sum_pairs(losses, rewards)


def reward_loss(rewards: torch.Tensor, *, center: float = 0.0) -> torch.Tensor:
    """Compute -log p(the preferred answer is preferred), by the model of Bradley and Terry (1952).

    Equation 1 of arXiv:2203.02155; rewards are drawn to zero as in arXiv:2312.09244.

    Args:
        rewards: scores of the preferred and the rejected answer, [pairs, 2].
        center: weight of the squared sum of both rewards, >= 0.

    Returns:
        Nats, [pairs]; log 2 for equal scores around zero.
    """
    from torch.nn.functional import logsigmoid

    losses = -logsigmoid(rewards[:, 0] - rewards[:, 1])
    return losses + center * rewards.sum(dim=1) ** 2 if center else losses


def answer_scores(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Score both answers of each row after their last token.

    Args:
        model: one with a head that scores.
        batch: what `join` makes of rows with two answers.

    Returns:
        [rows, 2], in fp32.
    """
    from tunesmith.models.layout import find_layout
    from tunesmith.models.score import scores_at

    find_layout(model)  # it lets the model attend to rows that lie end to end
    return scores_at(model, model_arguments(model, batch), last_tokens(batch)).view(-1, 2)


def last_tokens(batch: Batch) -> torch.Tensor:
    """Find the last token of each answer in the flattened batch, [answers]."""
    import torch

    device = batch["input_ids"].device
    if "segments" in batch:
        ends = [end - 1 for _, end, *_ in batch["segments"][: batch["num_answers"]]]
        return torch.tensor(ends, device=device)
    mask = batch["attention_mask"]
    starts = torch.arange(len(mask), device=device) * mask.shape[1]
    found: torch.Tensor = starts + mask.sum(dim=1) - 1
    return found
