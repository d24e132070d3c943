"""Losses and measures of batches, added up and averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.methods.method import LossSum
from tunesmith.methods.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch


class Averages:
    """What a method measures, averaged since it was last asked for."""

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor | float] = {"loss": 0.0}
        self._counts: dict[str, torch.Tensor | float] = {"loss": 0}

    def add(self, summed: LossSum) -> None:
        """Add the sums of a batch; they stay on its device."""
        for name, value in {"loss": summed.total.detach(), **summed.measures}.items():
            self._totals[name] = self._totals.get(name, 0.0) + value.double()
            count = summed.counts.get(name, summed.count)
            self._counts[name] = self._counts.get(name, 0) + count

    def take(self, ranks: Ranks = ALONE) -> dict[str, float]:
        """Return the averages over all processes, but those of nothing, and begin anew."""
        ours = {
            key: float(number)
            for name, total in self._totals.items()
            for key, number in (((name, "total"), total), ((name, "count"), self._counts[name]))
        }
        sums = ranks.totals(ours)
        found = {
            name: sums[name, "total"] / sums[name, "count"]
            for name in self._totals
            if sums[name, "count"]
        }
        if "rewards_chosen" in found and "rewards_rejected" in found:
            # where there are no pairs, only means can be compared
            found["rewards_margin"] = found["rewards_chosen"] - found["rewards_rejected"]
        self._totals, self._counts = {"loss": 0.0}, {"loss": 0}
        return found
