"""What an answer consists of: text, thoughts, and calls of tools that come in parts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Text:
    """What is said to the person."""

    text: str


@dataclass(frozen=True)
class Thought:
    """What the model thinks before it speaks."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """A call of a tool begins; its arguments follow.

    Attributes:
        index: its place among the calls of the answer.
    """

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A part of a call's arguments; joined, the parts are a JSON object."""

    index: int
    text: str


@dataclass(frozen=True)
class CallBroken:
    """A call that began is none: it comes again, in full, as text."""

    index: int


Part = Text | Thought | CallStart | CallArguments | CallBroken


@dataclass(frozen=True)
class ToolCall:
    """A whole call.

    Attributes:
        arguments: a JSON object.
    """

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Said:
    """A whole answer, its parts put together."""

    text: str
    thought: str
    calls: tuple[ToolCall, ...]


def put_together(parts: Iterable[Part]) -> Said:
    """Join the parts of an answer; broken calls are only among its text."""
    texts: list[str] = []
    thoughts: list[str] = []
    starts: dict[int, CallStart] = {}
    arguments: dict[int, list[str]] = {}
    for part in parts:
        match part:
            case Text():
                texts.append(part.text)
            case Thought():
                thoughts.append(part.text)
            case CallStart():
                starts[part.index], arguments[part.index] = part, []
            case CallArguments():
                arguments[part.index].append(part.text)
            case CallBroken():
                del starts[part.index]
    calls = (ToolCall(start.id, start.name, "".join(arguments[at])) for at, start in starts.items())
    return Said("".join(texts), "".join(thoughts), tuple(calls))
