"""Group relative policy optimization: compare several answers of the policy to each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.method import Batch, Joining, LossSum, Row
from tunesmith.methods.online import (
    Columns,
    Judged,
    Memory,
    OnlineMethod,
    Writing,
    join_answers_of,
    num_written,
    token_logps,
)
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.recipe.method import GRPO, GroupLoss

if TYPE_CHECKING:
    import torch

CLIP_HIGHER = 0.28
"""How far dapo lets probabilities rise, as in arXiv:2503.14476."""
LEAST_DEVIATION = 1e-4
"""Added to the deviation of a group, so that one of equal rewards can be divided by it."""


@dataclass(frozen=True)
class GRPOMethod(OnlineMethod):
    """The clipped loss on answers compared within their group (arXiv:2402.03300), and its kin."""

    options: GRPO

    @property
    def writing(self) -> Writing:
        """How the policy answers."""
        options = self.options
        return Writing(
            group_size=options.group_size,
            max_tokens=options.answer_tokens,
            temperature=options.temperature,
            rows=options.rollout_rows,
            iterations=options.iterations,
            redraws=options.redraws,
        )

    @property
    def _notes(self) -> bool:
        """Whether the policy will not be the one any more that wrote, or is needed for rewards."""
        return self.options.iterations > 1 or (self.options.loss == "rloo" and self.asks_reference)

    @property
    def _room(self) -> tuple[float, float]:
        """How far probabilities may fall and rise, relative to what they were."""
        options = self.options
        higher = CLIP_HIGHER if options.loss == "dapo" else options.epsilon
        return options.epsilon, options.epsilon_high or higher

    def own_rewards(self, rows: Sequence[Row]) -> dict[str, list[float]]:
        """Punish answers that come near the longest one, if asked to."""
        options = self.options
        if not options.overlong_tokens:
            return {}
        limit, last = options.answer_tokens, options.overlong_tokens
        return {"overlong": [overlong_punishment(num_written(row), limit, last) for row in rows]}

    def observe(self, model: torch.nn.Module, batch: Batch) -> Columns:
        """Note log p of each learned token, where the loss cannot know it by itself."""
        if not self._notes:
            return {}
        return {"old_logps": token_logps(model, batch, self.options.temperature)}

    def judge(self, rows: Sequence[Row], memory: Memory, ranks: Ranks = ALONE) -> Judged:
        """Give each answer its advantage over its group, and leave out of the loss what was cut."""
        import torch

        if not rows:
            return Judged([])
        options = self.options
        masked = options.overlong == "mask"
        rows = [_unlearned(row) if masked and row["cut"] else row for row in rows]
        rewards = torch.tensor([row["reward"] for row in rows], dtype=torch.float64)
        if options.loss == "rloo" and self.asks_reference:
            rewards -= options.beta * torch.tensor([_gone(row) for row in rows]).double()
        groups = rewards.view(-1, options.group_size)
        advantages = group_advantages(groups, loss=options.loss).flatten().tolist()
        judged = [{**row, "advantage": one} for row, one in zip(rows, advantages, strict=True)]
        return Judged(judged)

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch, their advantages and what was noted of their tokens."""
        return join_answers_of(rows, how, ("advantage",))

    def count(self, batch: Batch) -> int:
        """Count the tokens of a batch where all count alike, else its answers."""
        return len(batch["targets"]) if self.options.loss == "dapo" else int(batch["num_answers"])

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the answers of a batch."""
        import torch

        options, owner = self.options, batch["owner"]
        logps = token_logps(model, batch, options.temperature)
        old, advantages = batch.get("old_logps", logps.detach()), batch["advantage"]
        whole = options.loss == "rloo"
        if whole:
            logps_of, old_of = (sum_answers(each, owner, len(advantages)) for each in (logps, old))
        else:
            logps_of, old_of, advantages = logps, old, advantages[owner]
        ratios = torch.exp(logps_of - old_of)
        losses = clipped_losses(ratios, advantages, self._room)
        measures = {"entropy": -logps.detach().sum()}
        counted = torch.tensor(len(logps), device=logps.device)
        counts = {"entropy": counted}
        if self.asks_reference:
            kl = k3(logps, batch["reference_logps"])
            measures["kl"], counts["kl"] = kl.detach().sum(), counted
            # with the ratio its gradient is that of the divergence (arXiv:2512.02556, section 3.1)
            losses = losses if whole else losses + options.beta * ratios * kl
        clipped = {
            "clipped_low": (ratios < 1 - self._room[0]) & (advantages < 0),
            "clipped_high": (ratios > 1 + self._room[1]) & (advantages > 0),
        }
        for name, found in clipped.items():
            measures[name] = found.float().sum()
            counts[name] = torch.tensor(len(found), device=logps.device)
        total = losses * self._weights(owner, batch["num_answers"]) if not whole else losses
        return LossSum(total.sum().float(), self.count(batch), measures, counts)

    def _weights(self, owner: torch.Tensor, answers: int) -> torch.Tensor:
        """Tell how much each token counts, [learned]."""
        import torch

        if self.options.loss == "grpo":
            return 1 / owner.bincount(minlength=answers)[owner]
        share = 1 / self.options.answer_tokens if self.options.loss == "dr_grpo" else 1.0
        return torch.full(owner.shape, share, device=owner.device)


def group_advantages(rewards: torch.Tensor, *, loss: GroupLoss) -> torch.Tensor:
    """Compare the reward of each answer with those of its group.

    Section 4.1.2 of arXiv:2402.03300; without the deviation as in arXiv:2503.20783; with the mean
    of the others as in equation 8 of arXiv:2402.14740.

    Args:
        rewards: [groups, group].

    Returns:
        [groups, group]; 0 where all of a group are rewarded alike.
    """
    size = rewards.shape[1]
    gains = rewards - rewards.mean(dim=1, keepdim=True)
    if loss == "rloo":
        return gains * size / (size - 1)
    if loss == "dr_grpo":
        return gains
    return gains / (rewards.std(dim=1, keepdim=True) + LEAST_DEVIATION)


def clipped_losses(
    ratios: torch.Tensor, advantages: torch.Tensor, room: tuple[float, float]
) -> torch.Tensor:
    """Ask for more of what was good and less of what was bad, but not too far from what it was.

    Equation 7 of arXiv:1707.06347, with a room of its own upwards as in arXiv:2503.14476.

    Args:
        ratios: probability now over the one when it was written, of tokens or whole answers.
        advantages: of the same shape, without gradient.
        room: how far ratios may fall and rise from 1.
    """
    import torch

    low, high = room
    return -torch.minimum(ratios * advantages, ratios.clamp(1 - low, 1 + high) * advantages)


def k3(logps: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Estimate the KL divergence from a reference at each token that the policy drew, >= 0.

    Equation 4 of arXiv:2402.03300.
    """
    import torch

    gap = reference - logps
    return torch.exp(gap) - gap - 1


def sum_answers(values: torch.Tensor, owner: torch.Tensor, answers: int) -> torch.Tensor:
    """Sum [learned] numbers over each answer, [answers], in fp64."""
    return values.new_zeros(answers).double().index_add(0, owner, values.double())


def overlong_punishment(length: int, limit: int, last: int) -> float:
    """Punish an answer for its last tokens before the limit, from 0 to -1.

    Equation 13 of arXiv:2503.14476.
    """
    return min(0.0, max(-1.0, (limit - last - length) / last))


def _gone(row: Row) -> float:
    """Sum how far the policy went from the reference while it wrote an answer, in nats."""
    known = row["tokens"]
    return float(sum(known["old_logps"]) - sum(known["reference_logps"]))


def _unlearned(row: Row) -> Row:
    """Leave the answer of a row out of the loss; it still counts as one of its group."""
    nothing: dict[str, list[float]] = {name: [] for name in row.get("tokens", {})}
    return {**row, "labels": [UNLEARNED] * len(row["labels"]), "tokens": nothing}
