"""What writing answers takes beside a model and the optimizer's memory."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tunesmith.inference.batching.policy import AT_HAND
from tunesmith.models.tuning import is_full
from tunesmith.recipe.method import GRPO, Online
from tunesmith.recipe.options import Recipe

LOGIT_BYTES = 28
"""For each logit of an answer's next token: itself, colder or hotter, its odds, and their sums."""


@dataclass(frozen=True)
class RolloutMemory:
    """What a rollout holds at its peak, when nothing is held for a way back.

    Attributes:
        rows: answers that are written at the same time.
        per_row: bytes of keys, values and logits of one.
        fixed: bytes of what learns, laid out to be written with, and of questions kept at hand.
    """

    rows: int = 0
    per_row: int = 0
    fixed: int = 0

    @property
    def bytes(self) -> int:
        """What all of it takes."""
        return self.rows * self.per_row + self.fixed

    def with_rows(self, rows: int) -> RolloutMemory:
        """Tell what fewer rows would take."""
        return replace(self, rows=min(rows, self.rows))


NO_ROLLOUT = RolloutMemory()


def count_rollout(recipe: Recipe, model: Any, longest: int, width: int) -> RolloutMemory:
    """Count what answering takes; nothing where the method writes no answers.

    Args:
        model: the policy, as shapes.
        longest: tokens of a question and its answer.
        width: bytes of a number that products are computed in.
    """
    method = recipe.method
    if not isinstance(method, Online):
        return NO_ROLLOUT
    group = method.group_size if isinstance(method, GRPO) else 1
    answers = recipe.optimizer.batch_size * recipe.optimizer.accumulation * group
    config = model.config.get_text_config()
    text = longest * cache_numbers(config) * width
    learned = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    return RolloutMemory(
        rows=min(method.rollout_rows, answers),
        per_row=text + config.vocab_size * LOGIT_BYTES,
        fixed=AT_HAND * text + (learned * width if is_full(recipe.tuning) else 0),
    )


def cache_numbers(config: Any) -> int:
    """Count what is kept of a token while an answer is written; nothing without attention."""
    given: dict[str, Any] = config.to_dict()
    heads = int(given.get("num_attention_heads") or given.get("n_head") or 0)
    hidden = int(given.get("hidden_size") or given.get("n_embd") or 0)
    layers = int(given.get("num_hidden_layers") or given.get("n_layer") or 0)
    size = given.get("head_dim") or hidden // max(heads, 1)
    return 2 * layers * int(given.get("num_key_value_heads") or heads) * int(size)
