"""What a LLaMA-Factory file leaves to the machine it is read on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


def _not_known(of: object) -> None:
    return None


@dataclass(frozen=True)
class Around:
    """What the file does not say.

    Attributes:
        processes: that share an update; theirs is one for each GPU.
        has_template: whether a model ships a chat template; None if it is not on this machine.
        sees: whether a model takes more than text; None if it is not on this machine.
        positions: how many tokens a model takes; None if nobody knows.
        unfinished: the run that would put its model into a folder and has not ended; None if there
            is none.
    """

    processes: int = 1
    has_template: Callable[[str], bool | None] = _not_known
    sees: Callable[[str], bool | None] = _not_known
    positions: Callable[[str], int | None] = _not_known
    unfinished: Callable[[Path], str | None] = _not_known
