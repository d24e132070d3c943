"""The processes that train one model together, and what they tell each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import torch

Item = TypeVar("Item")
Name = TypeVar("Name")


class Lost(Exception):
    """Another process is gone, or told something else than was asked."""


@dataclass(frozen=True)
class Ranks:
    """One process among those that train together.

    What is asked of all must be asked by each of them, in the same order. A process alone asks
    nobody.

    Attributes:
        rank: number of this process, from 0.
        count: how many there are.
    """

    rank: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def total(self, given: torch.Tensor) -> torch.Tensor:
        """Put the sum over all processes in the place of a tensor, and return it."""
        if self.count > 1:
            from torch.distributed import all_reduce

            with hearing():
                all_reduce(given)
        return given

    def first(self, given: torch.Tensor) -> torch.Tensor:
        """Put what the first process has in the place of a tensor, and return it."""
        if self.count > 1:
            from torch.distributed import broadcast

            with hearing():
                broadcast(given, src=0)
        return given

    def any(self, mine: bool) -> bool:
        """Whether any process says so."""
        return bool(self._count(int(mine))) if self.count > 1 else mine

    def wait(self) -> None:
        """Wait until all have come so far."""
        self._count(0)

    def totals(self, named: Mapping[Name, float]) -> dict[Name, float]:
        """Add up figures over all processes; one that did other work may know other names."""
        if self.count == 1:
            return dict(named)
        import torch

        ours = {repr(name): number for name, number in named.items()}
        known = sorted({name for told in self._tell("\n".join(ours)) for name in told.split("\n")})
        summed = torch.tensor([ours.get(name, 0.0) for name in known], dtype=torch.float64)
        totals = dict(zip(known, self.total(summed).tolist(), strict=True))
        return {name: totals[repr(name)] for name in named}

    def _tell(self, text: str) -> list[str]:
        """Tell all processes a text, and hear theirs."""
        import torch

        ours = torch.tensor([*text.encode()], dtype=torch.uint8)
        sizes = torch.zeros(self.count, dtype=torch.int64)
        sizes[self.rank] = len(ours)
        told = torch.zeros(self.count, int(self.total(sizes).max()), dtype=torch.uint8)
        told[self.rank, : len(ours)] = ours
        rows = zip(self.total(told).tolist(), sizes.tolist(), strict=True)
        return [bytes(row[:size]).decode() for row, size in rows]

    def _count(self, mine: int) -> int:
        import torch

        return int(self.total(torch.tensor(mine)))


ALONE = Ranks()


@dataclass(frozen=True)
class Share:
    """The part of some work that falls to this process.

    Attributes:
        give_up: asked before each batch whether to leave the work undone.
    """

    ranks: Ranks = ALONE
    give_up: Callable[[], bool] = lambda: False

    def of(self, batches: Sequence[Item]) -> Sequence[Item]:
        """Take what is ours of the batches."""
        return batches[self.ranks.rank :: self.ranks.count]


WHOLE = Share()


@contextmanager
def hearing() -> Iterator[None]:
    """Tell apart what fails here and what fails because another process is gone."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as problem:
        raise Lost(str(problem)) from problem
