"""Losses and measures of batches, added up and averaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.methods.method import LossSum

if TYPE_CHECKING:
    import torch


class Averages:
    """What a method measures, averaged since it was last asked for."""

    def __init__(self) -> None:
        self._totals: dict[str, torch.Tensor] = {}
        self._counts: dict[str, torch.Tensor | int] = {}

    def add(self, summed: LossSum) -> None:
        """Add the sums of a batch; they stay on its device."""
        for name, value in {"loss": summed.total.detach(), **summed.measures}.items():
            self._totals[name] = self._totals.get(name, 0.0) + value.double()
            count = summed.counts.get(name, summed.count)
            self._counts[name] = self._counts.get(name, 0) + count

    def take(self) -> dict[str, float]:
        """Return the averages, but those of nothing, and begin anew."""
        found = {
            name: float(total) / float(self._counts[name])
            for name, total in self._totals.items()
            if self._counts[name]
        }
        if "rewards_chosen" in found and "rewards_rejected" in found:
            # where there are no pairs, only means can be compared
            found["rewards_margin"] = found["rewards_chosen"] - found["rewards_rejected"]
        self._totals, self._counts = {}, {}
        return found
