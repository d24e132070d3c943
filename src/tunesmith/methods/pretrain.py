"""Pretraining: learn to continue plain text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import join
from tunesmith.methods.method import Batch, Joining, LossSum, Method, Row
from tunesmith.methods.next_token import next_token_loss
from tunesmith.recipe.method import Pretrain

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class PretrainMethod(Method):
    """Next-token loss on every token of plain text."""

    options: Pretrain

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(kind="text", prompts=True, history=True, pack=self.options.pack)

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch."""
        return join(rows, how)

    def count(self, batch: Batch) -> int:
        """Count the learned tokens of a batch."""
        return len(batch["targets"])

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the learned tokens of a batch."""
        return next_token_loss(model, batch)
