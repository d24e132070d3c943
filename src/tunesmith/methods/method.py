"""What every method gives to the one training loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from tunesmith.data.rows import Learn

if TYPE_CHECKING:
    import torch

Row = dict[str, list[int]]
Batch = dict[str, "torch.Tensor"]


@dataclass(frozen=True)
class Joining:
    """How rows become a batch.

    Attributes:
        flat: end to end in one sequence, else below each other, padded.
        coarse: fill the sequence up to one of few sizes, by at most a sixteenth. Where each new
            size is compiled anew, as bf16 products on a CPU are, that is far cheaper.
    """

    flat: bool
    coarse: bool = False


@dataclass(frozen=True)
class LossSum:
    """A loss not yet averaged, so that batches of any size can be added up.

    Attributes:
        total: summed loss in nats, a scalar that carries the gradient.
        count: learned tokens it was summed over, a scalar.
    """

    total: torch.Tensor
    count: torch.Tensor


class Method(Protocol):
    """A loss and the rows it needs; pure: no files, no loop."""

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch."""

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the learned tokens of a batch."""
