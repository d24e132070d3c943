"""Decide which rows an update holds."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tunesmith.data.token_rows import TokenRows
from tunesmith.recipe.method import PPO, Online
from tunesmith.recipe.options import Recipe

DEFAULT_EPOCHS = 3.0


class UpdateOrder:
    """Row numbers of each update for a data loader, the same for the same seed and epoch.

    Inside an update rows come longest first, which keeps padding small where there is any.

    Args:
        lengths: tokens of each row, [rows].
        update_rows: rows of an update; the last may hold fewer.
        update_tokens: tokens of an update instead, as nearly as whole rows allow.
        repeats: updates in turn that hold the same rows.
    """

    def __init__(
        self,
        lengths: npt.NDArray[np.int32],
        *,
        update_rows: int,
        seed: int,
        update_tokens: int | None = None,
        repeats: int = 1,
    ) -> None:
        self.lengths, self.update_rows, self.seed = lengths, update_rows, seed
        self.repeats = repeats
        self.update_tokens = update_tokens
        self.epoch = 0

    def __len__(self) -> int:
        """Count the updates of an epoch, the same for every epoch."""
        return self._count() * self.repeats

    def _count(self) -> int:
        """Count the updates of an epoch that hold other rows."""
        if self.update_tokens is None:
            return math.ceil(len(self.lengths) / self.update_rows)
        wanted = round(int(self.lengths.sum()) / self.update_tokens)
        return min(max(wanted, 1), len(self.lengths))

    def __iter__(self) -> Iterator[list[int]]:
        """Yield the row numbers of each update of the current epoch."""
        shuffled = self._shuffled(self.epoch)
        for update in np.split(shuffled, self._edges(self.lengths[shuffled])):
            longest_first = np.argsort(-self.lengths[update], kind="stable")
            for _ in range(self.repeats):
                yield [int(row) for row in update[longest_first]]

    def sizes(self, steps: int) -> npt.NDArray[np.int64]:
        """Count the tokens of each of the first updates and of its longest row, [2, steps]."""
        epochs = []
        for epoch in range(-(-steps // len(self))):
            lengths = self.lengths[self._shuffled(epoch)]
            starts = np.concatenate([[0], self._edges(lengths)])
            both = (at.reduceat(lengths, starts, dtype=np.int64) for at in (np.add, np.maximum))
            epochs.append(np.repeat(np.stack([*both]), self.repeats, axis=1))
        found: npt.NDArray[np.int64] = np.concatenate(epochs, axis=1)[:, :steps]
        return found

    def lengths_of(self, step: int) -> list[int]:
        """List the tokens of each row of an update, counted from 0, the longest first."""
        epoch, update = divmod(step, len(self))
        lengths = self.lengths[self._shuffled(epoch)]
        parts = np.split(lengths, self._edges(lengths))
        return sorted(parts[update // self.repeats].tolist(), reverse=True)

    def _shuffled(self, epoch: int) -> npt.NDArray[np.int64]:
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.lengths))

    def _edges(self, lengths: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
        """Find the first row of each update but the first, at equal distances of rows or tokens."""
        count, rows = self._count(), len(lengths)
        numbers = np.arange(1, count)
        if self.update_tokens is None:
            return numbers * self.update_rows
        ends = np.cumsum(lengths, dtype=np.int64)
        found = np.searchsorted(ends, numbers * (ends[-1] / count)) + 1
        found = np.maximum.accumulate(found - numbers) + numbers  # a row at least for each
        edges: npt.NDArray[np.int64] = np.minimum(found, rows - count + numbers)
        return edges


def _updates_of_a_rollout(recipe: Recipe) -> int:
    """Count the updates that learn from answers to the same questions."""
    method = recipe.method
    if not isinstance(method, Online):
        return 1
    return method.iterations * (method.minibatches if isinstance(method, PPO) else 1)


def build_order(recipe: Recipe, rows: TokenRows) -> UpdateOrder:
    """Order the rows of a run."""
    return UpdateOrder(
        rows.lengths,
        update_rows=update_rows(recipe),
        update_tokens=recipe.optimizer.update_tokens,
        seed=recipe.run.seed,
        repeats=_updates_of_a_rollout(recipe),
    )


def update_rows(recipe: Recipe) -> int:
    """Count the rows that an update learns from."""
    return recipe.optimizer.batch_size * recipe.optimizer.accumulation


def count_steps(recipe: Recipe, order: UpdateOrder) -> int:
    """Count the updates of a run."""
    epochs = recipe.run.epochs or DEFAULT_EPOCHS
    return recipe.run.steps or math.ceil(epochs * len(order))
