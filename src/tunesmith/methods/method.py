"""What every method gives to the one training loop."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from tunesmith.data.rows import Learn
from tunesmith.methods.ranks import ALONE, Ranks

if TYPE_CHECKING:
    import torch

Row = dict[str, Any]
"""What `TokenRows` yields, and what a method needs beside it."""
Batch = dict[str, Any]
"""Tensors, and the segments of rows laid end to end."""


@dataclass(frozen=True)
class Joining:
    """How rows become a batch.

    Attributes:
        flat: end to end in one sequence, else below each other, padded.
        coarse: fill the sequence up to one of few sizes, by at most a sixteenth. Where each new
            size is compiled anew, as bf16 products on a CPU are, that is far cheaper.
        shared: two answers behind one question, which is computed once.
    """

    flat: bool
    coarse: bool = False
    shared: bool = True


@dataclass(frozen=True)
class LossSum:
    """A loss not yet averaged, so that batches of any size can be added up.

    Attributes:
        total: summed loss in nats, a scalar that carries the gradient.
        count: what it was summed over: learned tokens, or pairs.
        measures: sums over the same of what else is worth watching, scalars without gradient.
        counts: of how many a measure is the sum, where it is not one of all.
        classes: of rows that name a class, how many of each were named rightly, were named so,
            and are of it, [3, labels].
    """

    total: torch.Tensor
    count: float
    measures: Mapping[str, torch.Tensor] = field(default_factory=dict)
    counts: Mapping[str, torch.Tensor] = field(default_factory=dict)
    classes: torch.Tensor | None = None


class Method(Protocol):
    """A loss and the rows it needs; pure: no files, no loop."""

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""

    @property
    def needs_reference(self) -> bool:
        """Whether rows carry what the model said of them before training; most need none."""
        return False

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch."""

    def count(self, batch: Batch) -> float:
        """Count what the loss of a batch is summed over."""

    def look_ahead(
        self, model: torch.nn.Module, batches: Iterable[Batch], ranks: Ranks = ALONE
    ) -> Batch:
        """Find out of all batches of an update what the loss of each depends on.

        Draws no random number and changes no weight.

        Args:
            batches: what `collate` returns; gone through at most once.
            ranks: the processes that share the update.

        Returns:
            what is added to each batch.
        """
        return {}

    def beside(self, other: torch.nn.Module | None) -> Method:
        """Let the method ask another model of every batch, which never learns; most ask none."""
        return self

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss of a batch."""

    def logps(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        """Compute what a reference is asked for: log p of two answers a row in nats, [rows, 2]."""
        raise NotImplementedError(f"{type(self).__name__} needs no reference")
