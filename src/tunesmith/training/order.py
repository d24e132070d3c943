"""Decide which rows an update holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.token_rows import TokenRows
from tunesmith.recipe.options import Recipe

DEFAULT_EPOCHS = 3.0


class UpdateOrder:
    """Row numbers of each update for a data loader, the same for the same seed and epoch.

    Inside an update rows come longest first, which keeps padding small where there is any.
    """

    def __init__(self, lengths: npt.NDArray[np.int32], *, update_rows: int, seed: int) -> None:
        self.lengths, self.update_rows, self.seed = lengths, update_rows, seed
        self.epoch = 0

    def __len__(self) -> int:
        """Count the updates of an epoch; the last may hold fewer rows."""
        return math.ceil(len(self.lengths) / self.update_rows)

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each update of the current epoch."""
        shuffled = np.random.default_rng([self.seed, self.epoch]).permutation(len(self.lengths))
        for start in range(0, len(shuffled), self.update_rows):
            update = shuffled[start : start + self.update_rows]
            update = update[np.argsort(-self.lengths[update], kind="stable")]
            yield [int(row) for row in update]


def build_order(recipe: Recipe, rows: TokenRows) -> UpdateOrder:
    """Order the rows of a run."""
    return UpdateOrder(rows.lengths, update_rows=update_rows(recipe), seed=recipe.run.seed)


def update_rows(recipe: Recipe) -> int:
    """Count the rows that an update learns from."""
    return recipe.optimizer.batch_size * recipe.optimizer.accumulation


def count_steps(recipe: Recipe, order: UpdateOrder) -> int:
    """Count the updates of a run."""
    epochs = recipe.run.epochs or DEFAULT_EPOCHS
    return recipe.run.steps or math.ceil(epochs * len(order))
