"""What methods share that learn the answers of conversations, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import count_learned, join
from tunesmith.methods.method import Batch, Joining, Method, Row
from tunesmith.recipe.method import SFT, Distill


class AnswerMethod(Method):
    """A method whose rows are conversations, and whose loss is one of their learned tokens."""

    options: SFT | Distill

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(
            kind="conversation",
            prompts=self.options.learn_prompts,
            history=self.options.learn_history,
            pack=False,
        )

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch."""
        return join(rows, how)

    def count(self, batch: Batch) -> float:
        """Count the learned tokens of a batch, each by its weight."""
        return count_learned(batch)
