"""Which rows are learned, how often, and which are held out."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from tunesmith.data.mix import Unit, hold_out, limit, mix, shuffle


def make_units(*counts: int, repeat: int = 1) -> Unit:
    """Units of one row each, of several sets; every `repeat` neighbours are equal rows."""
    store = np.repeat(np.arange(len(counts)), counts)
    first = np.concatenate([np.arange(count) for count in counts])
    digest = np.arange(sum(counts)) // repeat
    return Unit(store, first, np.ones(len(store), np.int64), digest)


def spell(units: Unit) -> list[tuple[int, int]]:
    return list(zip(units.store.tolist(), units.first.tolist(), strict=True))


def test_rows_of_units_are_listed_in_their_order() -> None:
    units = Unit(np.array([1, 0]), np.array([5, 2]), np.array([3, 1]), np.array([7, 8]))
    assert units.rows().tolist() == [[1, 5], [1, 6], [1, 7], [0, 2]]
    assert units.take(np.array([1])).rows().tolist() == [[0, 2]]


def test_a_share_of_the_rows_is_held_out_and_no_row_is_on_both_sides() -> None:
    units = make_units(200)
    learned, measured = hold_out(units, 0.1, seed=1)
    assert (len(learned), len(measured)) == (180, 20)
    assert sorted(spell(learned) + spell(measured)) == spell(units)
    assert spell(learned) == sorted(spell(learned))


def test_equal_rows_are_never_parted() -> None:
    units = make_units(300, repeat=3)
    learned, measured = hold_out(units, 0.2, seed=3)
    assert set(learned.digest.tolist()).isdisjoint(measured.digest.tolist())
    assert len(measured) == 60


def test_a_number_of_rows_is_held_out() -> None:
    learned, measured = hold_out(make_units(200), 0.0, seed=1, rows=7)
    assert (len(learned), len(measured)) == (193, 7)


@pytest.mark.parametrize("share", [0.0001, 0.999])
def test_both_sides_have_a_row_where_there_are_two(share: float) -> None:
    learned, measured = hold_out(make_units(2), share, seed=1)
    assert (len(learned), len(measured)) == (1, 1)


@pytest.mark.parametrize("units", [make_units(1), make_units(4, repeat=4)])
def test_nothing_is_held_out_where_all_rows_are_one(units: Unit) -> None:
    learned, measured = hold_out(units, 0.5, seed=1)
    assert (len(learned), len(measured)) == (len(units), 0)


def test_nothing_is_held_out_unless_asked() -> None:
    learned, measured = hold_out(make_units(10), 0.0, seed=1)
    assert (len(learned), len(measured)) == (10, 0)


def test_the_seed_decides_what_is_held_out() -> None:
    units = make_units(100)
    one, again, other = (spell(hold_out(units, 0.1, seed=seed)[1]) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_sets_without_a_weight_stay_as_they_are() -> None:
    units = make_units(5, 3)
    assert spell(mix(units, [None, None], seed=1)) == spell(units)


def test_weights_are_shares_of_as_many_rows_as_there_are() -> None:
    mixed = mix(make_units(30, 70), [3.0, 1.0], seed=1)
    assert Counter(mixed.store.tolist()) == {0: 75, 1: 25}


def test_a_set_that_must_give_more_than_it_has_is_gone_through_evenly() -> None:
    mixed = mix(make_units(30, 70), [3.0, 1.0], seed=1)
    times = Counter(first for store, first in spell(mixed) if store == 0)
    assert set(times.values()) == {2, 3}
    assert len(times) == 30


def test_a_set_that_must_give_less_gives_no_row_twice() -> None:
    mixed = mix(make_units(30, 70), [3.0, 1.0], seed=1)
    rows = [first for store, first in spell(mixed) if store == 1]
    assert len(rows) == len(set(rows)) == 25


def test_a_set_without_a_weight_stays_whole_beside_weighted_ones() -> None:
    mixed = mix(make_units(10, 40, 7), [1.0, 1.0, None], seed=1)
    assert Counter(mixed.store.tolist()) == {0: 25, 1: 25, 2: 7}
    assert [first for store, first in spell(mixed) if store == 2] == list(range(7))


def test_shares_that_are_no_whole_numbers_still_give_all_rows() -> None:
    mixed = mix(make_units(10, 10, 11), [1.0, 1.0, 1.0], seed=1)
    assert len(mixed) == 31
    assert sorted(Counter(mixed.store.tolist()).values()) == [10, 10, 11]


def test_a_set_without_rows_has_no_share() -> None:
    assert Counter(mix(make_units(0, 6), [1.0, 1.0], seed=1).store.tolist()) == {1: 6}


def test_the_seed_decides_the_mix() -> None:
    units = make_units(30, 70)
    one, again, other = (spell(mix(units, [1.0, 1.0], seed=seed)) for seed in (1, 1, 2))
    assert one == again
    assert one != other


def test_a_limit_draws_rows_and_keeps_their_order() -> None:
    units = make_units(50)
    drawn = spell(limit(units, 20, seed=1))
    assert len(set(drawn)) == 20
    assert drawn == sorted(drawn)
    assert drawn != spell(units)[:20]
    assert drawn == spell(limit(units, 20, seed=1)) != spell(limit(units, 20, seed=2))


@pytest.mark.parametrize("max_rows", [None, 50, 51])
def test_a_limit_that_is_not_reached_changes_nothing(max_rows: int | None) -> None:
    units = make_units(50)
    assert spell(limit(units, max_rows, seed=1)) == spell(units)


def test_shuffling_loses_no_row_and_obeys_the_seed() -> None:
    units = make_units(20, 20)
    one, again, other = (spell(shuffle(units, seed=seed)) for seed in (1, 1, 2))
    assert sorted(one) == spell(units)
    assert one == again
    assert one != other


def test_weights_of_any_size_are_shares() -> None:
    units = make_units(10, 30)
    for size in (1e-300, 1.0, 1e308):
        mixed = mix(units, [size, size], seed=1)
        assert Counter(mixed.store.tolist()) == {0: 20, 1: 20}
