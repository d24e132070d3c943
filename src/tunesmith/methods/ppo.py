"""Proximal policy optimization: learn which tokens of an answer brought its reward."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.methods.advantages import Moments, gained, moments_of, whiten
from tunesmith.methods.grpo import clipped_losses, k3
from tunesmith.methods.learned import Predictions, predict
from tunesmith.methods.method import Batch, Joining, LossSum, Row
from tunesmith.methods.online import (
    Columns,
    Judged,
    Memory,
    OnlineMethod,
    Writing,
    join_answers_of,
)
from tunesmith.methods.ranks import ALONE, Ranks
from tunesmith.recipe.method import PPO

if TYPE_CHECKING:
    import torch

FARTHEST = 0.2
"""How far from its target a divergence counts at most, relative to it (arXiv:1909.08593)."""


@dataclass(frozen=True)
class PPOMethod(OnlineMethod):
    """The clipped loss on advantages over learned values (arXiv:1707.06347)."""

    options: PPO

    @property
    def writing(self) -> Writing:
        """How the policy answers."""
        options = self.options
        return Writing(
            group_size=1,
            max_tokens=options.answer_tokens,
            temperature=options.temperature,
            rows=options.rollout_rows,
            iterations=options.iterations,
            minibatches=options.minibatches,
        )

    def own_rewards(self, rows: Sequence[Row]) -> dict[str, list[float]]:
        """Punish answers that do not end, if asked to."""
        penalty = self.options.cut_penalty
        return {"cut_penalty": [-penalty * row["cut"] for row in rows]} if penalty else {}

    def observe(self, model: torch.nn.Module, batch: Batch) -> Columns:
        """Note log p and value of each learned token."""
        predictions = predict(model, batch)
        logps = -predictions.token_losses(self.options.temperature)
        return {"old_logps": logps, "old_values": token_values(model, predictions)}

    def judge(self, rows: Sequence[Row], memory: Memory, ranks: Ranks = ALONE) -> Judged:
        """Give each token its advantage, and what was to be expected before it.

        Remembered are the strength of the pull to the reference, where it adapts, and the rewards
        seen so far, where they are scaled by them.
        """
        import torch

        options = self.options
        written = [len(row["tokens"]["old_logps"]) for row in rows]
        values, within = _padded(rows, "old_values"), _within(written)
        strength = memory.get("kl_coefficient", options.beta)
        kl = self._divergence(rows)
        rewards = token_rewards(kl, self._scaled(rows, memory, ranks), within, strength=strength)
        if options.whiten_rewards:
            known = rewards[within]
            rewards[within] = whiten(known, moments_of(known, ranks), keep_mean=True)
        found = gained(rewards, values, gamma=options.gamma, gae_lambda=options.gae_lambda)
        returns, advantages = (found + values)[within], found[within]
        figures = {"explained_variance": explained(returns, values[within], ranks)}
        if self.asks_reference:
            whole = moments_of(kl.sum(dim=1), ranks)
            figures |= {"answer_kl": whole.mean, "kl_coefficient": strength}
            memory["kl_coefficient"] = self._adapted(strength, whole)
        advantages = whiten(advantages, moments_of(advantages, ranks))
        parts = (torch.split(each, written) for each in (advantages, returns))
        told = zip(rows, *parts, strict=True)
        return Judged([_with(row, *each) for row, *each in told], figures)

    def _divergence(self, rows: Sequence[Row]) -> torch.Tensor:
        """Estimate how far each token went from the reference, [answers, tokens]."""
        import torch

        logps = _padded(rows, "old_logps")
        if not self.asks_reference:
            return torch.zeros_like(logps)
        reference = _padded(rows, "reference_logps")
        return logps - reference if self.options.kl_estimate == "k1" else k3(logps, reference)

    def _scaled(self, rows: Sequence[Row], memory: Memory, ranks: Ranks) -> torch.Tensor:
        """Scale rewards by all seen so far, and clip them, if asked to, [answers]."""
        import torch

        options = self.options
        rewards = torch.tensor([row["reward"] for row in rows], dtype=torch.float64)
        if options.scale_rewards:
            names = ("reward_count", "reward_mean", "reward_squares")
            seen = Moments(*(memory.get(name, 0.0) for name in names)) + moments_of(rewards, ranks)
            memory |= dict(zip(names, (seen.count, seen.mean, seen.squares), strict=True))
            rewards = whiten(rewards, seen)
        limit = options.clip_rewards
        return rewards.clamp(-limit, limit) if limit else rewards

    def _adapted(self, strength: float, divergence: Moments) -> float:
        """Adapt the pull to the reference, if it has a target."""
        options = self.options
        if not options.kl_target:
            return strength
        gain = divergence.count / options.kl_horizon
        return adapted(strength, divergence.mean, target=options.kl_target, gain=gain)

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch with what is known of their tokens."""
        return join_answers_of(rows, how)

    def count(self, batch: Batch) -> int:
        """Count the learned tokens of a batch."""
        return len(batch["targets"])

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the learned tokens of a batch."""
        options, old_logps = self.options, batch["old_logps"]
        predictions = predict(model, batch)
        logps = -predictions.token_losses(options.temperature)
        ratios, advantages = (logps - old_logps).exp(), batch["advantages"]
        policy_losses = clipped_losses(ratios, advantages, (options.epsilon, options.epsilon))
        value_losses = clipped_value_losses(
            token_values(model, predictions),
            batch["old_values"],
            batch["returns"],
            room=options.value_epsilon,
        )
        total = (policy_losses + options.value_weight * value_losses).sum()
        measures = {
            "policy_loss": policy_losses,
            "value_loss": value_losses,
            "clipped": policy_losses > -ratios * advantages,
            "update_kl": k3(old_logps, logps),
            "entropy": -logps,
        }
        summed = {name: each.detach().float().sum() for name, each in measures.items()}
        return LossSum(total.float(), len(batch["targets"]), summed)


def token_values(policy: torch.nn.Module, predictions: Predictions) -> torch.Tensor:
    """Tell what was still to be gained before each learned token, in fp32, [learned]."""
    from tunesmith.models.value import find_value_head

    head = find_value_head(policy)
    assert head is not None  # a policy that learns by values is loaded with one
    values: torch.Tensor = head(predictions.given)
    return values


def token_rewards(
    kl: torch.Tensor, rewards: torch.Tensor, within: torch.Tensor, *, strength: float
) -> torch.Tensor:
    """Reward the last token for the answer, and punish each for going from the reference.

    Equation 2 of arXiv:1909.08593, token by token.

    Args:
        kl: estimated divergence of each token, [answers, tokens].
        rewards: of whole answers, [answers].
        within: which tokens are there, [answers, tokens].
        strength: of the pull to the reference.

    Returns:
        [answers, tokens], 0 behind the end.
    """
    import torch

    found = torch.where(within, -strength * kl, 0.0)
    found[torch.arange(len(found)), within.sum(dim=1) - 1] += rewards
    return found


def clipped_value_losses(
    values: torch.Tensor, old: torch.Tensor, returns: torch.Tensor, *, room: float
) -> torch.Tensor:
    """Halve the squared error of values, or that of values held near what they were, if larger.

    Equation 9 of arXiv:1707.06347, clipped as the policy is.

    Args:
        values: told now, [tokens].
        old: told when the answers were written, [tokens].
        returns: what was to be expected, [tokens].
        room: how far values may move; 0 for as far as they like.
    """
    import torch

    errors = (values - returns) ** 2
    if room:
        held = old + (values - old).clamp(-room, room)
        errors = torch.maximum(errors, (held - returns) ** 2)
    return errors / 2


def adapted(strength: float, divergence: float, *, target: float, gain: float) -> float:
    """Pull harder where the policy went farther from the reference than wanted, else less.

    The controller of section 2.2 of arXiv:1909.08593.

    Args:
        divergence: of an answer, in nats.
        gain: how fast the strength adapts, 0.1 there.
    """
    error = (divergence - target) / target
    return strength * (1 + gain * min(max(error, -FARTHEST), FARTHEST))


def explained(returns: torch.Tensor, values: torch.Tensor, ranks: Ranks = ALONE) -> float:
    """Tell the share of the variance of returns that values foresaw; 1 at best, 0 for nothing."""
    total = moments_of(returns, ranks).variance
    left = moments_of(returns - values, ranks).variance
    return 1 - left / total if total else 0.0


def _padded(rows: Sequence[Row], name: str) -> torch.Tensor:
    """Lay what is known of each token below each other, 0 behind the end, [answers, tokens]."""
    import torch

    known = [torch.tensor(row["tokens"][name], dtype=torch.float64) for row in rows]
    if not known:
        return torch.zeros(0, 0, dtype=torch.float64)
    return torch.nn.utils.rnn.pad_sequence(known, batch_first=True)


def _within(written: Sequence[int]) -> torch.Tensor:
    """Tell which tokens are there, [answers, tokens]."""
    import torch

    sizes = torch.tensor(written, dtype=torch.long)
    return torch.arange(max(written, default=0)) < sizes[:, None]


def _with(row: Row, advantages: torch.Tensor, returns: torch.Tensor) -> Row:
    known = {name: row["tokens"][name] for name in ("old_logps", "old_values")}
    told = {"advantages": advantages.tolist(), "returns": returns.tolist()}
    return {**row, "tokens": known | told}
