"""Decide which rows an update holds, and in which micro-steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.token_rows import TokenRows
from tunesmith.recipe.options import Recipe

DEFAULT_EPOCHS = 3.0


class UpdateOrder:
    """Batches of row numbers for a data loader, the same for the same seed and epoch.

    An update holds `batch_size * accumulation` rows drawn without regard to how they are split,
    so that the split changes nothing but speed. Inside an update rows are sorted by length, which
    keeps padding small.
    """

    def __init__(
        self, lengths: npt.NDArray[np.int32], *, batch_size: int, accumulation: int, seed: int
    ) -> None:
        self.lengths, self.batch_size, self.seed = lengths, batch_size, seed
        self.update_rows = batch_size * accumulation
        self.epoch = 0

    def __len__(self) -> int:
        """Count the micro-steps of an epoch."""
        whole, rest = divmod(len(self.lengths), self.update_rows)
        per_update = self.update_rows // self.batch_size
        return whole * per_update + -(-rest // self.batch_size)

    @property
    def updates_per_epoch(self) -> int:
        """Count the updates of an epoch; the last may hold fewer rows."""
        return -(-len(self.lengths) // self.update_rows)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each micro-step of the current epoch."""
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))
        for start in range(0, len(shuffled), self.update_rows):
            update = shuffled[start : start + self.update_rows]
            update = update[np.argsort(-self.lengths[update], kind="stable")]
            for begin in range(0, len(update), self.batch_size):
                yield [int(row) for row in update[begin : begin + self.batch_size]]


def build_order(recipe: Recipe, rows: TokenRows) -> UpdateOrder:
    """Order the rows of a run."""
    return UpdateOrder(
        rows.lengths,
        batch_size=recipe.optimizer.batch_size,
        accumulation=recipe.optimizer.accumulation,
        seed=recipe.run.seed,
    )


def count_steps(recipe: Recipe, order: UpdateOrder) -> int:
    """Count the updates of a run."""
    epochs = recipe.run.epochs or DEFAULT_EPOCHS
    return recipe.run.steps or math.ceil(epochs * order.updates_per_epoch)
