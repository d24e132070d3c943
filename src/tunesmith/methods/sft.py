"""Supervised fine-tuning: imitate the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import count_learned, join
from tunesmith.methods.method import Batch, Joining, LossSum, Method, Row
from tunesmith.methods.next_token import next_token_loss
from tunesmith.recipe.method import SFT

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class SFTMethod(Method):
    """Next-token loss on the answers of conversations."""

    options: SFT

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(
            kind="conversation",
            prompts=self.options.learn_prompts,
            history=self.options.learn_history,
            pack=False,
        )

    @property
    def needs_reference(self) -> bool:
        """Whether rows carry what the model said of them before training."""
        return False

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch."""
        return join(rows, how)

    def count(self, batch: Batch) -> float:
        """Count the learned tokens of a batch, each by its weight."""
        return count_learned(batch)

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the learned tokens of a batch."""
        return next_token_loss(
            model,
            batch,
            noise=self.options.neftune_alpha,
            smoothing=self.options.label_smoothing,
        )
