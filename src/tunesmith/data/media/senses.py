"""What the data asks of a model that sees or hears."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from tunesmith.recipe.data import Data

Shown = tuple[str, Any]
"""A kind, and what was decoded: an image of Pillow, a `Video` or a `Sound`."""


class Senses(Protocol):
    """How a family of models reads what is not text.

    Attributes:
        tokens: by kind, what a chat template writes in its place.
        ids: the tokens that a model puts what it sees in the place of.
        sha256: hash of all that decides how much text something counts as.
        shows: how the run that trained the model showed things; None if it is of no run.
    """

    @property
    def shows(self) -> Data | None:
        """How the run that trained the model showed things; None if it is of no run."""

    @property
    def tokens(self) -> Mapping[str, str]:
        """By kind, what a chat template writes in its place."""

    @property
    def ids(self) -> frozenset[int]:
        """The tokens that a model puts what it sees in the place of."""

    @property
    def sha256(self) -> str:
        """Hash of all that decides how much text something counts as."""

    def why_not(self, kind: str) -> str:
        """Say why nothing of a kind can be read; nothing if it can."""

    def spell(self, shown: Shown) -> str:
        """Write as text what a model takes in the place of something shown."""

    def numbers(self, rows: Sequence[Sequence[Shown]]) -> dict[str, Any]:
        """Make the tensors that a model takes beside the tokens of some rows."""
