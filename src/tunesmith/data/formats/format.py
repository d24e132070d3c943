"""What every format gives, and the checks that formats share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tunesmith.data.rows import Kind, Message, RowFault, spell

Fields = Mapping[str, object]
Names = Mapping[str, str]

UNUSABLE = re.compile("[\x00\ud800-\udfff\ufdd0-\ufdd5]")
TYPE_NAMES = {
    "NoneType": "null",
    "bool": "true or false",
    "int": "a number",
    "float": "a number",
    "str": "a text",
    "list": "a list",
    "dict": "an object",
}


@dataclass(frozen=True)
class Pair:
    """Messages that end with the preferred answer, and the rejected one."""

    messages: tuple[Message, ...]
    rejected: Message


@dataclass(frozen=True)
class Judgement:
    """Messages that end with an answer, and whether it is good."""

    messages: tuple[Message, ...]
    good: bool


@dataclass(frozen=True)
class Question:
    """Messages that end with a question, and the answer to it where the data has one."""

    messages: tuple[Message, ...]
    reference: str | None


@dataclass(frozen=True)
class Classed:
    """A text, or the path of an image, and the name of its class."""

    text: str
    label: str


@dataclass(frozen=True)
class Format:
    """A way to write rows.

    Attributes:
        columns: our name of each column to the name it has unless `data.columns` says otherwise.
        tags: likewise for roles and keys inside messages.
        matches: whether a row looks written in this format; gets columns under our names.
        read: gives the messages, pair, judgement, class, question or text of a row; raises
            RowFault. Gets columns under our names, and the tags.
    """

    name: str
    kind: Kind
    columns: Mapping[str, str]
    tags: Mapping[str, str]
    matches: Callable[[Fields, Names], bool]
    read: Callable[
        [Fields, Names], tuple[Message, ...] | Pair | Judgement | Classed | Question | str
    ]


def describe(value: object) -> str:
    """Name the kind of a value as a person would."""
    name = type(value).__name__
    return TYPE_NAMES.get(name, name)


def quote(value: object) -> str:
    """Quote a text for a message; name the kind of anything else."""
    return f"'{spell(value)}'" if isinstance(value, str) else describe(value)


def read_text(fields: Fields, name: str, label: str = "") -> str:
    """Return a column that must hold a text; the text may be blank.

    Raises:
        RowFault: if it is missing, of another type, or holds characters no text may hold.
    """
    label = label or f"`{name}`"
    if name not in fields:
        raise RowFault(f"{label} is missing")
    return check_text(fields[name], label)


def read_optional(fields: Fields, name: str, label: str = "") -> str:
    """Return a column that may be missing or null, then an empty text."""
    if fields.get(name) is None:
        return ""
    return read_text(fields, name, label)


def check_text(value: object, label: str) -> str:
    """Return a value that must be a text.

    Raises:
        RowFault: naming what is wrong with it.
    """
    if not isinstance(value, str):
        raise RowFault(f"{label} is {describe(value)}, not a text")
    found = None if value.isascii() and "\x00" not in value else UNUSABLE.search(value)
    if found is None:
        return value
    code = ord(found.group())
    if code == 0:
        reason = "a NUL character"
    elif code <= 0xDFFF:
        reason = f"half of a character (U+{code:04X})"
    else:
        reason = f"the reserved character U+{code:04X}"
    raise RowFault(f"{label} holds {reason} at character {found.start() + 1}")


def read_list(fields: Fields, name: str) -> Sequence[object]:
    """Return a column that must hold a list; tables spell it as JSON.

    Raises:
        RowFault: if it is missing or of another type.
    """
    if name not in fields:
        raise RowFault(f"`{name}` is missing")
    value = fields[name]
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowFault(f"`{name}` is a text, and not JSON either") from None
    if not isinstance(value, list):
        raise RowFault(f"`{name}` is {describe(value)}, not a list")
    return value


def read_object(text: str, label: str) -> object:
    """Read a text that a table holds in an object's place; one that is no object stays a text.

    Raises:
        RowFault: if it begins as an object and is not JSON.
    """
    if not text.lstrip().startswith("{"):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise RowFault(f"{label} begins as an object, and is not JSON") from None


def is_label(value: object) -> bool:
    """Whether a value says good or bad: true or false, which tables may spell as text."""
    return isinstance(value, bool) or (
        isinstance(value, str) and value.strip().lower() in ("true", "false")
    )


def read_label(fields: Fields) -> bool:
    """Return whether a row's answer is good.

    Raises:
        RowFault: if `label` is missing, or neither true nor false.
    """
    if "label" not in fields:
        raise RowFault("`label` is missing")
    value = fields["label"]
    if not is_label(value):
        raise RowFault(f"`label` is {quote(value)}, not true or false")
    return value if isinstance(value, bool) else str(value).strip().lower() == "true"
