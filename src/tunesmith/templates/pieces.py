"""The parts of a rendered conversation, and the answers in it."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.templates.marks import Span


@dataclass(frozen=True)
class Piece:
    """A part of a rendered conversation.

    Attributes:
        weight: how much its tokens count in the loss.
    """

    text: str
    learned: bool
    weight: float = 1.0


@dataclass(frozen=True)
class Turn:
    """One answer, rendered as a server meets it: with all before it and nothing after.

    Attributes:
        text: the conversation up to and with the answer.
        learned: spans of `text`, in order; the last one is closed by the turn's end.
        closed: whether the template itself wrote the turn's end after the answer.
        ending: the token that ends the turn.
        weight: how much the answer counts.
    """

    text: str
    learned: tuple[Span, ...]
    closed: bool
    ending: str
    weight: float = 1.0

    @property
    def end(self) -> int:
        """Where the answer is over in `text`."""
        return self.learned[-1][1] if self.learned else len(self.text)
