"""An update holds the same rows however it is split into micro-steps."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.training.order import UpdateOrder


def order(count: int, batch_size: int, accumulation: int, seed: int = 0) -> UpdateOrder:
    lengths = np.random.default_rng(0).integers(1, 50, count).astype(np.int32)
    return UpdateOrder(lengths, batch_size=batch_size, accumulation=accumulation, seed=seed)


def updates(found: UpdateOrder, accumulation: int) -> list[set[int]]:
    batches = list(found)
    size = accumulation
    return [
        {row for batch in batches[start : start + size] for row in batch}
        for start in range(0, len(batches), size)
    ]


@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 5))
def test_every_row_comes_once_an_epoch(count: int, batch_size: int, accumulation: int) -> None:
    found = order(count, batch_size, accumulation)
    batches = list(found)
    assert sorted(row for batch in batches for row in batch) == list(range(count))
    assert len(batches) == len(found)
    assert found.updates_per_epoch == -(-count // (batch_size * accumulation))


def test_the_split_does_not_change_what_an_update_holds() -> None:
    whole = updates(order(40, 8, 1), 1)
    assert updates(order(40, 4, 2), 2) == whole
    assert updates(order(40, 1, 8), 8) == whole


def test_an_epoch_repeats_and_the_next_one_differs() -> None:
    first, again = order(30, 4, 1), order(30, 4, 1)
    assert list(first) == list(again)
    again.epoch = 1
    assert list(first) != list(again)


def test_rows_of_an_update_come_longest_first() -> None:
    found = order(16, 16, 1)
    (batch,) = found
    lengths = found.lengths[batch]
    assert (np.diff(lengths) <= 0).all()
