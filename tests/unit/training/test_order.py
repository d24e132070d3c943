"""An epoch gives every row to one update, in an order that repeats."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.training.order import UpdateOrder


def order(count: int, update_rows: int, seed: int = 0) -> UpdateOrder:
    lengths = np.random.default_rng(0).integers(1, 50, count).astype(np.int32)
    return UpdateOrder(lengths, update_rows=update_rows, seed=seed)


@given(st.integers(1, 60), st.integers(1, 40))
def test_every_row_comes_once_an_epoch(count: int, update_rows: int) -> None:
    found = order(count, update_rows)
    updates = list(found)
    assert sorted(row for update in updates for row in update) == list(range(count))
    assert len(updates) == len(found)
    assert all(len(update) == update_rows for update in updates[:-1])


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 4), st.integers(1, 99))
def test_updates_that_repeat_are_those_that_would_come_once(
    count: int, size: int, repeats: int, steps: int
) -> None:
    lengths = order(count, 1).lengths
    once = UpdateOrder(lengths, update_rows=size, seed=0)
    found = UpdateOrder(lengths, update_rows=size, seed=0, repeats=repeats)
    assert [*found] == [update for update in once for _ in range(repeats)]
    assert len(found) == len([*found])
    totals, _ = found.sizes(steps)
    assert totals.tolist() == once.sizes(steps)[0].repeat(repeats)[:steps].tolist()
    assert found.lengths_of(steps) == once.lengths_of(steps // repeats)


@given(st.integers(1, 60), st.integers(1, 4000), st.integers(0, 3))
def test_updates_of_tokens_hold_about_as_many_and_every_row_once(
    count: int, update_tokens: int, epoch: int
) -> None:
    lengths = order(count, 1).lengths
    found = UpdateOrder(lengths, update_rows=8, update_tokens=update_tokens, seed=0)
    found.epoch = epoch
    updates = list(found)
    assert sorted(row for update in updates for row in update) == list(range(count))
    assert len(updates) == len(found)
    assert all(updates)
    mean, longest = lengths.sum() / len(found), lengths.max()
    assert mean <= 1.5 * update_tokens or len(found) == count
    if mean > 2 * longest:
        assert all(abs(lengths[update].sum() - mean) <= longest for update in updates)


@given(st.integers(1, 60), st.integers(1, 40), st.integers(1, 99), st.booleans())
def test_the_sizes_of_updates_are_known_before_they_come(
    count: int, size: int, steps: int, by_tokens: bool
) -> None:
    lengths = order(count, 1).lengths
    tokens = 20 * size if by_tokens else None
    found = UpdateOrder(lengths, update_rows=size, update_tokens=tokens, seed=0)
    updates: list[list[int]] = []
    while len(updates) < steps:
        updates += [lengths[update].tolist() for update in found]
        found.epoch += 1
    totals, longest = found.sizes(steps)
    assert totals.tolist() == [sum(update) for update in updates[:steps]]
    assert longest.tolist() == [max(update) for update in updates[:steps]]
    assert found.lengths_of(steps - 1) == updates[steps - 1]


def test_an_epoch_repeats_and_the_next_one_differs() -> None:
    first, again = order(30, 4), order(30, 4)
    assert list(first) == list(again)
    again.epoch = 1
    assert list(first) != list(again)


def test_rows_of_an_update_come_longest_first() -> None:
    found = order(16, 16)
    (batch,) = found
    lengths = found.lengths[batch]
    assert (np.diff(lengths) <= 0).all()
