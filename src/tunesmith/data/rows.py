"""What a data file holds, once read: conversations and texts, each knowing where it stands."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tunesmith.paths import expand
from tunesmith.templates.parts import spell_places

if TYPE_CHECKING:
    from tunesmith.data.media.senses import Senses

Kind = Literal["text", "conversation", "preference", "judged", "prompt", "labelled", "image"]


@dataclass(frozen=True)
class Place:
    """A place in a file, counted from 1.

    Attributes:
        line: the line, or the row in a file without lines (parquet, arrow).
        column: in characters; 0 in a file without lines.
    """

    path: str
    line: int
    column: int = 0

    def __str__(self) -> str:
        """Spell the place as editors understand it."""
        return f"{self.path}:{self.line}" + (f":{self.column}" if self.column else "")


@dataclass(frozen=True)
class Problem:
    """A row that is not used, and why.

    Attributes:
        kind: `bad` if it is wrong, `long` if it only has too many tokens.
    """

    place: Place
    reason: str
    kind: Literal["bad", "long"] = "bad"

    def __str__(self) -> str:
        """Spell it as `file:line:column: reason`."""
        return f"{self.place}: {self.reason}"


def spell(text: str, length: int = 40) -> str:
    """Spell the start of a text of a file for a message: on one line, and every character seen."""
    start = "".join(c if c.isprintable() else f"\\u{ord(c):04x}" for c in text[:length])
    return f"{start}..." if len(text) > length else start


class RowFault(Exception):
    """Why a row cannot be used; whoever knows its place makes a `Problem` of it."""


@dataclass(frozen=True)
class Record:
    """A row as its file spells it, before a format gives it meaning."""

    place: Place
    fields: Mapping[str, object]


@dataclass(frozen=True)
class Call:
    """A call of a tool.

    Attributes:
        id: what its result calls it.
    """

    name: str
    arguments: Mapping[str, Any]
    id: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return the call as chat templates take it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"type": "function", "id": self.id, "function": function}


Source = str | tuple[str, ...]
"""Where something lies: a file, a data: address; or images in order, which are a video."""


@dataclass(frozen=True)
class Medium:
    """An image, a video or a sound that a message holds.

    Attributes:
        kind: image, video or audio.
        source: where it lies, as the row spells it; empty where a column of the row says so.
        sha256: hash of its bytes when its row was read.
        pixels: an image, or a frame, of more is made smaller; 0 leaves it.
        fps, frames: how many frames of a video are taken a second, and at most; 0 as usual.
    """

    kind: str
    source: Source
    sha256: str = ""
    pixels: int = 0
    fps: float = 0
    frames: int = 0

    @classmethod
    def of(cls, kept: Sequence[Any]) -> Medium:
        """Read what `as_list` wrote."""
        kind, source, *more = kept
        return cls(kind, tuple(source) if isinstance(source, list) else source, *more)

    def as_list(self, source: Source) -> list[Any]:
        """Write it as messages keep it, from where it lies for them."""
        more = [self.pixels, self.fps, self.frames]
        while more and not more[-1]:
            more.pop()
        return [self.kind, source, self.sha256, *more]

    def each(self, find: Callable[[str], str]) -> Source:
        """Return where it lies, each file found otherwise."""
        return find(self.source) if isinstance(self.source, str) else (*map(find, self.source),)

    def found_from(self, place: Place) -> Source:
        """Return where it lies, whoever asks."""
        return self.each(
            lambda one: one if is_address(one) else str(image_file(one, place).absolute())
        )


def is_address(source: str) -> bool:
    """Whether something lies nowhere: the address holds it."""
    return source[:5].lower() == "data:"


@dataclass(frozen=True)
class Message:
    """What one side said.

    Attributes:
        role: system, user, assistant or tool.
        content: the text, with one of PLACES where something is shown or heard.
        calls: what an answer calls.
        reasoning: what was thought before an answer.
        weight: how much an answer counts in the loss; 0 learns nothing of it.
        call_id: of a tool's result, the call it belongs to.
        name: of a tool's result, the tool.
        media: what is shown or heard, in the order of its places.
    """

    role: str
    content: str
    calls: tuple[Call, ...] = ()
    reasoning: str = ""
    weight: float = 1.0
    call_id: str = ""
    name: str = ""
    media: tuple[Medium, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return the message as chat templates take it."""
        found: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning:
            found["reasoning_content"] = self.reasoning
        if self.calls:
            found["tool_calls"] = [call.as_dict() for call in self.calls]
        if self.role == "tool":
            found |= {"tool_call_id": self.call_id, "name": self.name}
        return found

    def spell(self) -> str:
        """Spell all of it in one text."""
        thought = f"<think>{self.reasoning}</think>" if self.reasoning else ""
        calls = [json.dumps([c.name, c.arguments], ensure_ascii=False) for c in self.calls]
        parts = (thought, spell_places(self.content), *calls)
        return "\n".join(part for part in parts if part)


@dataclass(frozen=True)
class Conversation:
    """Messages in turn, the last one an answer.

    Attributes:
        tools: the tools that may be called, as chat templates take them.
    """

    messages: tuple[Message, ...]
    place: Place
    tools: tuple[Mapping[str, Any], ...] = field(default=(), kw_only=True)

    def as_dicts(self) -> list[dict[str, Any]]:
        """Return the messages as chat templates take them, and where what they show lies."""
        found = [message.as_dict() for message in self.messages]
        for message, written in zip(self.messages, found, strict=True):
            if message.media:
                written["media"] = [
                    medium.as_list(medium.found_from(self.place)) for medium in message.media
                ]
        return found


@dataclass(frozen=True)
class Preference(Conversation):
    """A conversation whose last answer was preferred to another one, the rejected."""

    rejected: Message

    def with_rejected(self) -> Conversation:
        """Return the conversation as it would be with the other answer."""
        return Conversation((*self.messages[:-1], self.rejected), self.place, tools=self.tools)


@dataclass(frozen=True)
class Judged(Conversation):
    """A conversation whose last answer was judged good or bad."""

    good: bool


@dataclass(frozen=True)
class Prompt(Conversation):
    """A conversation up to its last question, which a model is to answer.

    Attributes:
        reference: how the data answers it; None if it does not.
    """

    reference: str | None


def split_answer(row: Conversation) -> tuple[tuple[Message, ...], str]:
    """Part a conversation before its last answer, which is an empty text where there is none."""
    if isinstance(row, Prompt):
        return row.messages, row.reference or ""
    return row.messages[:-1], row.messages[-1].spell()


@dataclass(frozen=True)
class Text:
    """A plain text."""

    text: str
    place: Place


@dataclass(frozen=True)
class Labelled(Text):
    """A text and the name of its class."""

    label: str


@dataclass(frozen=True)
class LabelledImage(Labelled):
    """An image and the name of its class.

    Attributes:
        text: where the image lies, as the file spells it: relative to the file's folder.
        sha256: hash of its bytes when it was read.
    """

    sha256: str

    @property
    def file(self) -> Path:
        """Where the image lies."""
        return image_file(self.text, self.place)


def media_of(row: Conversation) -> tuple[Medium, ...]:
    """List what the messages of a conversation show, in turn."""
    return tuple(medium for message in row.messages for medium in message.media)


def image_file(spelled: str, place: Place) -> Path:
    """Find an image that a row names, from the folder of the row's file."""
    return Path(place.path).parent / expand(spelled)


Row = Conversation | Text


def count_chars(row: Row) -> int:
    """Count the characters of a row, without what a template writes around them."""
    if isinstance(row, Text):
        return len(row.text)
    other = len(row.rejected.spell()) if isinstance(row, Preference) else 0
    tools = len(json.dumps(row.tools, ensure_ascii=False)) if row.tools else 0
    return sum(len(message.spell()) for message in row.messages) + other + tools


@dataclass(frozen=True)
class Learn:
    """Which tokens a method learns.

    Attributes:
        kind: the rows it takes.
        prompts: also the tokens that are not answers.
        history: the answers before the last one too.
        pack: join texts into rows of exactly `max_tokens`.
        image_tokens: how many tokens an image counts as.
        senses: what makes numbers of what conversations show; None for a model of text alone.
    """

    kind: Kind
    prompts: bool = False
    history: bool = True
    pack: bool = False
    image_tokens: int = 0
    senses: Senses | None = field(default=None, compare=False)
