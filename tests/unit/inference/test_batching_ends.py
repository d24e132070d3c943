"""An answer that is cancelled at any moment leaves nothing behind."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace
from typing import Any

from tunesmith.inference.batching.batch import Batch


class Cancelled:
    """A row that is cancelled by another thread between two looks at it."""

    def __init__(self, looks: int) -> None:
        self._looks, self.finish = looks, "stop"

    @property
    def is_over(self) -> bool:
        self._looks -= 1
        return self._looks < 0


def test_an_answer_cancelled_between_two_looks_is_not_lost_on_its_shelf() -> None:
    removed: list[Any] = []
    shelf, prefixes = SimpleNamespace(remove=removed.append), SimpleNamespace(keep=lambda _: None)
    slots: list[Any] = [SimpleNamespace(row=Cancelled(looks), shelf=shelf) for looks in (0, 1, 9)]
    unused: Any = None
    batch = Batch(unused, unused, prefixes, 3, 1, slots=list(slots))  # type: ignore[arg-type]
    batch._drop_ended()
    assert (removed, batch.slots) == (slots[:1], slots[1:])
    batch._drop_ended()
    assert (removed, batch.slots) == (slots[:2], slots[2:])


def test_cancelled_answers_do_not_pile_up_behind_long_ones() -> None:
    unused: Any = None
    rows: list[Any] = [SimpleNamespace(is_over=over) for over in (False, True, True, False)]
    batch = Batch(unused, unused, unused, 3, 1, waiting=deque(rows))
    batch._drop_ended()
    assert [*batch.waiting] == [rows[0], rows[3]]


def test_an_answer_that_is_let_in_is_never_out_of_sight() -> None:
    """Others look whether an answer needs its adapter while it leaves those that wait."""
    seen: list[bool] = []

    class Watched(deque[Any]):
        def popleft(self) -> Any:
            seen.append(bool(batch.slots))
            return super().popleft()

    unused: Any = None
    row, slot = SimpleNamespace(is_over=False), SimpleNamespace(left=2)
    shelves: Any = SimpleNamespace(take=lambda _: slot)
    prefixes: Any = SimpleNamespace(fill=lambda _: None)
    batch = Batch(unused, shelves, prefixes, 3, 1, waiting=Watched([row]))
    assert batch._admit() is slot
    assert seen == [True]
