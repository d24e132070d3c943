"""Whatever server is asked, and whether its answers are what OpenAI publishes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import openai
from openai import BaseModel
from openai._legacy_response import HttpxBinaryResponseContent

Model = TypeVar("Model", bound=BaseModel)
OURS = {"reasoning_content", "reasoning"}
"""Fields that servers of open models add, and their clients read."""


@dataclass(frozen=True)
class Theirs:
    """A server and one of its models."""

    client: openai.OpenAI
    model: str

    def post(self, path: str, body: dict[str, Any]) -> bytes:
        """Send a body as it is and return what comes back."""
        content = {"model": self.model, **body}
        reply = self.client.post(path, cast_to=HttpxBinaryResponseContent, body=content)
        return bytes(reply.content)


def strictly(kind: type[Model], content: bytes | str) -> Model:
    """Read JSON as one of OpenAI's published types; no value may be coerced, no field unknown."""
    found = kind.model_validate_json(content, strict=True)
    assert not list(_unknown(found)), list(_unknown(found))
    return found


def _unknown(value: Any) -> Iterator[str]:
    if isinstance(value, BaseModel):
        yield from (name for name in value.model_extra or {} if name not in OURS)
        value = vars(value)
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from _unknown(inner)


def events_of(content: bytes) -> list[tuple[str, str]]:
    """Part a stream into events: their names, if they have any, and their data."""
    found = []
    for block in content.decode("utf-8").split("\n\n"):
        lines = block.splitlines()
        names = [line[7:] for line in lines if line.startswith("event: ")]
        data = [line[6:] for line in lines if line.startswith("data: ")]
        if data:
            found.append(("".join(names), "\n".join(data)))
    return found


def chunks_of(kind: type[Model], content: bytes) -> list[Model]:
    """Read the chunks of a stream that ends as OpenAI's do."""
    *events, (_, last) = events_of(content)
    assert last == "[DONE]"
    return [strictly(kind, data) for _, data in events]


def spelled(value: Any) -> str:
    """Spell a value as JSON."""
    return json.dumps(value, ensure_ascii=False)
