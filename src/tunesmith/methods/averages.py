"""Losses and measures of batches, added up and averaged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.methods.method import LossSum
from tunesmith.methods.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch


class Averages:
    """What a method measures, averaged since it was last asked for."""

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor | float] = {"loss": 0.0}
        self._counts: dict[str, torch.Tensor | float] = {"loss": 0}
        self._classes: torch.Tensor | None = None

    def add(self, summed: LossSum) -> None:
        """Add the sums of a batch; they stay on its device."""
        for name, value in {"loss": summed.total.detach(), **summed.measures}.items():
            self._totals[name] = self._totals.get(name, 0.0) + value.double()
            count = summed.counts.get(name, summed.count)
            self._counts[name] = self._counts.get(name, 0) + count
        if summed.classes is not None:
            classes = summed.classes.double()
            self._classes = classes if self._classes is None else self._classes + classes

    def take(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """Return the averages over all processes, but those of nothing, and begin anew."""
        ours = {
            key: float(number)
            for name, total in self._totals.items()
            for key, number in (((name, "total"), total), ((name, "count"), self._counts[name]))
        }
        counted = [] if self._classes is None else self._classes.flatten().tolist()
        sums = ranks.totals(ours | {("class", str(at)): one for at, one in enumerate(counted)})
        found = {
            name: sums[name, "total"] / sums[name, "count"]
            for name in self._totals
            if sums[name, "count"]
        }
        if "rewards_chosen" in found and "rewards_rejected" in found:
            # where there are no pairs, only means can be compared
            found["rewards_margin"] = found["rewards_chosen"] - found["rewards_rejected"]
        if counted:
            known = [sums["class", str(at)] for at in range(len(counted))]
            found["macro_f1"] = macro_f1(*np.reshape(known, (3, -1)).tolist())
        self._totals, self._counts, self._classes = {"loss": 0.0}, {"loss": 0}, None
        return found


def macro_f1(right: Sequence[float], named: Sequence[float], there: Sequence[float]) -> float:
    """Average the F1 of the classes that rows are of, or that are named, each alike.

    Args:
        right, named, there: of each class how many rows were named rightly, were named so, and
            are of it.
    """
    scores = [
        2 * hits / (said + seen)
        for hits, said, seen in zip(right, named, there, strict=True)
        if said + seen
    ]
    return sum(scores) / len(scores) if scores else 0.0
