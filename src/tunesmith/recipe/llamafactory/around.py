"""What a LLaMA-Factory file leaves to the machine it is read on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


def _not_known(name: str) -> bool | None:
    return None


@dataclass(frozen=True)
class Around:
    """What the file does not say.

    Attributes:
        processes: that share an update; theirs is one for each GPU.
        has_template: whether a model ships a chat template; None if it is not on this machine.
        sees: whether a model takes more than text; None if it is not on this machine.
    """

    processes: int = 1
    has_template: Callable[[str], bool | None] = _not_known
    sees: Callable[[str], bool | None] = _not_known
