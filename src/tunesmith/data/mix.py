"""Which rows are learned, how often, and which are held out: numbers only, drawn with the seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from tunesmith.data.store import Ints, Store
from tunesmith.errors import DataError

Until = Literal["total", "first", "last"]
MOST_ROUNDS, ROUNDING = 1000, 1e-9
VALIDATION, MIX, LIMIT = 2, 3, 4
"""Each draw has its own stream of random numbers, so that one option never moves another's."""


@dataclass(frozen=True)
class Unit:
    """The conversations or texts of some sets, each the rows that belong together.

    Attributes:
        store: number of the set, [units].
        first, count: its rows there, [units].
        digest: hash of the first row as read; equal rows are never parted, [units].
    """

    store: Ints
    first: Ints
    count: Ints
    digest: Ints

    def take(self, chosen: Ints) -> Unit:
        """Return some of the units, in the order given."""
        return Unit(self.store[chosen], self.first[chosen], self.count[chosen], self.digest[chosen])

    def __len__(self) -> int:
        """Count the units."""
        return len(self.store)

    def rows(self) -> Ints:
        """List the rows of all units: number of the set, row in it, [rows, 2]."""
        owner = np.repeat(np.arange(len(self)), self.count)
        begin = np.repeat(np.cumsum(self.count) - self.count, self.count)
        row = self.first[owner] + np.arange(len(owner)) - begin
        return np.column_stack([self.store[owner], row])


def find_units(stores: Sequence[Store]) -> Unit:
    """List the units of all sets, in order."""
    parts: list[tuple[Ints, ...]] = []
    for number, store in enumerate(stores):
        _, first, count = np.unique(store.units, return_index=True, return_counts=True)
        digest = store.digests.view(np.int64)[first]
        parts.append((np.full(len(first), number), first, count, digest))
    return Unit(*(np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)))


def hold_out(units: Unit, share: float, seed: int, rows: int | None = None) -> tuple[Unit, Unit]:
    """Part units into training and validation; equal rows go to the same side.

    Args:
        rows: how many different rows to hold out, instead of a share.

    Returns:
        Training and validation; validation has at least one row and so has training, where there
        are two different rows at all.
    """
    different = np.unique(units.digest)
    if (not share and not rows) or len(different) < 2:
        return units, units.take(np.zeros(0, np.int64))
    count = min(rows or max(1, round(share * len(different))), len(different) - 1)
    random = np.random.default_rng([seed, VALIDATION])
    held = np.isin(units.digest, random.choice(different, count, replace=False))
    return units.take(np.flatnonzero(~held)), units.take(np.flatnonzero(held))


def mix(units: Unit, weights: Sequence[float | None], seed: int, until: Until = "total") -> Unit:
    """Draw from the sets that have a weight, in proportion; the others stay as they are.

    A set that must give more than it has is gone through again and again, each time in another
    order.

    Args:
        until: the weighted sets together give as many rows as they hold, or as many as it takes
            until the first or the last of them has given all.
    """
    if not any(weights):
        return units
    random = np.random.default_rng([seed, MIX])
    own = [np.flatnonzero(units.store == number) for number in range(len(weights))]
    drawn = [n for n, weight in enumerate(weights) if weight is not None and len(own[n])]
    share = np.array([weights[number] for number in drawn], float)
    share /= share.max(initial=0.0)  # before they are added: the sum of large ones is infinite
    share /= share.sum()
    sizes = np.array([len(own[number]) for number in drawn], float)
    total = _count_rows(sizes, share, until)
    exact = total * share
    counts = np.floor(exact).astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: total - counts.sum()]] += 1
    for number, count in zip(drawn, counts, strict=True):
        rounds = -(-count // len(own[number]))
        orders = [random.permutation(own[number]) for _ in range(rounds)]
        own[number] = np.sort(np.concatenate(orders)[:count]) if orders else own[number][:0]
    return units.take(np.concatenate(own))


def _count_rows(sizes: npt.NDArray[Any], share: npt.NDArray[Any], until: Until) -> int:
    """Count the rows of a mix.

    Raises:
        DataError: if the last set would be through only after the others came a thousand times.
    """
    if until == "total" or not len(sizes):
        return int(sizes.sum())
    ends = sizes / share
    if until == "first":
        return math.floor(float(ends.min()) * (1 + ROUNDING))
    last = float(ends.max()) * (1 - ROUNDING)
    if last > MOST_ROUNDS * sizes.sum():
        raise DataError(
            f"until the last set has given all its rows, the mix would hold {last:,.0f}",
            hint="give the sets weights that are less far apart, or write `mix_until: total`",
            where="data.mix_until",
        )
    return math.ceil(last)


def limit(units: Unit, max_rows: int | None, seed: int) -> Unit:
    """Draw at most so many units, in their order."""
    if max_rows is None or len(units) <= max_rows:
        return units
    random = np.random.default_rng([seed, LIMIT])
    return units.take(np.sort(random.choice(len(units), max_rows, replace=False)))


def shuffle(units: Unit, seed: int) -> Unit:
    """Put units in another order, so that packed rows mix their sets."""
    return units.take(np.random.default_rng([seed, MIX + 10]).permutation(len(units)))
