"""An answer that is cancelled at any moment leaves nothing behind."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from tunesmith.inference.batching.batch import Batch


class Cancelled:
    """A row that is cancelled by another thread between two looks at it."""

    def __init__(self, looks: int) -> None:
        self._looks = looks

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
