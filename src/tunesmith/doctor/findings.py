"""What was found, one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["good", "absent", "broken"]
"""Absent is what may be added; broken is what the installation cannot do without."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        part: what it belongs to, such as machine or packages.
        hint: what to do about it; empty if nothing is to be done.
    """

    part: str
    name: str
    value: str
    state: State = "good"
    hint: str = ""


@dataclass(frozen=True)
class Ability:
    """What can be done with weights that are kept in some way.

    Attributes:
        loads: whether a model of such weights is read and answers.
        trains: whether an adapter on it gets gradients.
        merges: whether the adapter is added to full weights, which then answer the same.
        why_not: of the first that cannot be done.
    """

    name: str
    loads: bool = False
    trains: bool = False
    merges: bool = False
    why_not: str = ""
    hint: str = ""
    needed: bool = False

    @property
    def state(self) -> State:
        """Broken if it is needed and cannot be done."""
        if self.loads and self.trains and self.merges:
            return "good"
        return "broken" if self.needed else "absent"
