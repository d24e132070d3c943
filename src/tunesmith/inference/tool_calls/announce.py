"""Tell the calls of an answer one after the other, each under an id of its own."""

from __future__ import annotations

import json
import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.inference.parts import CallArguments, CallStart
from tunesmith.inference.tool_calls.source import Broken, Reading, Source

LETTERS = string.ascii_letters + string.digits
ARGUMENTS = ("arguments", "parameters")
KEYS = ("name", "type", "id", *ARGUMENTS)


def long_id() -> str:
    """Make an id as OpenAI's API does."""
    return f"call_{secrets.token_hex(12)}"


def short_id() -> str:
    """Make an id of nine letters and digits, which Mistral's templates demand."""
    return "".join(secrets.choice(LETTERS) for _ in range(9))


class Calls:
    """The calls of one answer while they are read.

    Attributes:
        tools: what may be called, by name; none if that is not known.
        source: the answer.
        kept: where the source is known to be told up to.
        open: whether a call was told and is not whole.
        num_whole: how many were read to their ends.
    """

    def __init__(
        self, source: Source, tools: Sequence[Mapping[str, Any]], new_id: Callable[[], str]
    ) -> None:
        functions = [tool["function"] for tool in tools]
        self.tools = {each["name"]: each.get("parameters") or {} for each in functions}
        self.source, self._new_id = source, new_id
        self.kept, self.open, self.index, self.num_whole = 0, False, -1, 0

    def start(self, name: str) -> Reading[None]:
        """Tell that a call begins."""
        self.index, self.open = self.index + 1, True
        yield CallStart(self.index, self._new_id(), name)

    def add(self, arguments: str) -> Reading[None]:
        """Tell a part of its arguments."""
        if arguments:
            yield CallArguments(self.index, arguments)

    def finish(self) -> None:
        """Note that the call is whole."""
        self.open, self.kept = False, self.source.at
        self.num_whole += 1

    def check_name(self, name: str) -> None:
        """Hold a name that nothing else marks as a call to the tools that are offered."""
        if not name or (self.tools and name not in self.tools):
            raise Broken

    def read_object(self) -> Reading[None]:
        """Read arguments that stand there as a JSON object, and tell them as they come."""
        done = self.source.at
        if (yield from self.source.peek()) != "{":
            raise Broken
        for part in self.source.read_value():
            yield from self.add(self.source.text[done : self.source.at])
            done = self.source.at
            yield part
        yield from self.add(self.source.text[done : self.source.at])

    def read_call(self, *, known_only: bool = False) -> Reading[None]:
        """Read a call that is one JSON object with a name and arguments.

        Args:
            known_only: nothing but its form marks it as a call.
        """
        source, spelled = self.source, Spelled()
        yield from source.expect("{")
        while True:
            yield from source.skip_space()
            key = yield from source.read_key()
            if known_only and key not in KEYS:
                raise Broken
            yield from self._read_member(key, spelled, known_only=known_only)
            yield from source.skip_space()
            if (yield from source.meets("}")):
                break
            yield from source.expect(",")
        if not spelled.name:
            raise Broken
        if not self.open:
            yield from self.start(spelled.name)
            yield from self.add(spelled.arguments)

    def _read_member(self, key: str, spelled: Spelled, *, known_only: bool) -> Reading[None]:
        """Read one value of a call; arguments are told at once where the name is known."""
        source = self.source
        if key == "name":
            spelled.name = yield from source.read_string()
            if known_only:
                self.check_name(spelled.name)
        elif key not in ARGUMENTS:
            yield from source.read_value()
        elif spelled.name and not self.open and (yield from source.peek()) == "{":
            yield from self.start(spelled.name)
            yield from self.read_object()
        else:
            spelled.arguments = _object_of((yield from source.read_value()))


@dataclass
class Spelled:
    """What is known of a call before it is told."""

    name: str = ""
    arguments: str = "{}"


def _object_of(spelled: str) -> str:
    """Take arguments that are an object, one spelled in a string, or null."""
    value = json.loads(spelled)
    if isinstance(value, str):
        spelled, value = value, _loaded(value)
    if value is None:
        return "{}"
    if not isinstance(value, dict):
        raise Broken
    return spelled


def _loaded(text: str) -> Any:
    try:
        return json.loads(text) if text.strip() else None
    except (ValueError, RecursionError):
        raise Broken from None


def spell_value(text: str, schema: object) -> str:
    """Spell as JSON what a format writes without quotes: by its schema, else by its looks."""
    kinds = kinds_of(schema)
    if kinds == {"string"}:
        return json.dumps(text, ensure_ascii=False)
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return json.dumps(text, ensure_ascii=False)
    if kinds and "string" in kinds and not (_kind(value) & kinds):
        return json.dumps(text, ensure_ascii=False)
    return text.strip()


def _refuse(word: str) -> None:
    raise ValueError(word)


def kinds_of(schema: object) -> set[str]:
    """Name the types that a schema allows; none if it does not say."""
    if not isinstance(schema, Mapping):
        return set()
    if alternatives := schema.get("anyOf") or schema.get("oneOf"):
        found = [kinds_of(each) for each in alternatives]
        return set().union(*found) if all(found) else set()
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return set().union(*map(_kind, values))
    declared = schema.get("type", ())
    return {declared} if isinstance(declared, str) else set(declared)


def _kind(value: object) -> set[str]:
    if isinstance(value, bool):
        return {"boolean"}
    if isinstance(value, int | float):
        return {"number", "integer"}
    names: dict[type, str] = {str: "string", dict: "object", list: "array", type(None): "null"}
    return {names[type(value)]}
