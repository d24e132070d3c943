"""One line a request, without what was asked or answered unless somebody wants it."""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import TextIO

import orjson

from tunesmith.serving.front import seconds_of
from tunesmith.serving.note import Note

QUIET = ("/health", "/ready", "/metrics")
"""What is asked again and again and tells nothing."""


class RequestLog:
    """Writes a line of JSON for each request; those that end together are written together.

    Each time a thread writes, others may take Python from it, such as the one that computes.

    Attributes:
        prompts: whether prompts and answers are written too.
    """

    def __init__(self, *, prompts: bool = False, to: TextIO | None = None) -> None:
        self.prompts, self._to = prompts, to or sys.stderr
        self._lines: list[str] = []

    def write(self, note: Note, route: str, status: int) -> None:
        """Write one down, once the event loop has gone round."""
        if route in QUIET and status < 400:
            return
        line = {
            "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "request": note.id,
            "route": route,
            "status": status,
            "seconds": round(seconds_of(note), 4),
        }
        if note.key:
            line["key"] = note.key
        if note.model:
            first = None if note.first is None else round(note.first - note.begun, 4)
            line |= {
                "model": note.model,
                "prompt_tokens": note.prompt_tokens,
                "written_tokens": note.written,
                "first_token": first,
            }
        if self.prompts and note.prompt is not None:
            line |= {"prompt": note.prompt, "answer": note.answer}
        self._lines.append(orjson.dumps(line).decode() + "\n")
        if len(self._lines) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        """Write what was noted; a full disk or a closed pipe stops nobody."""
        lines, self._lines = "".join(self._lines), []
        with suppress(OSError, ValueError):
            self._to.write(lines)
            self._to.flush()
