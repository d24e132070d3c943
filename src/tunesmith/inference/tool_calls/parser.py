"""Part an answer into what it says and what it calls, while it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.inference.parts import CallBroken, Part, Text
from tunesmith.inference.tool_calls.announce import Calls
from tunesmith.inference.tool_calls.formats import ToolFormat
from tunesmith.inference.tool_calls.source import Broken, Reading, Source


class ToolParser:
    """Turn pieces of text into parts; a call that is broken is given back as text.

    Args:
        tools: what may be called, each as OpenAI's API takes it.
    """

    def __init__(self, form: ToolFormat, tools: Sequence[Mapping[str, Any]]) -> None:
        self._form = form
        self._source = Source()
        self._calls = Calls(self._source, tools, form.new_id)
        self._said = False
        self._reading = self._read()

    def push(self, text: str) -> list[Part]:
        """Add a text and return what is now certain."""
        self._source.text += text
        return self._go_on()

    def end(self) -> list[Part]:
        """Return what was held back."""
        self._source.ended = True
        return self._go_on()

    def _go_on(self) -> list[Part]:
        parts: list[Part] = []
        for part in self._reading:
            if part is None:
                break
            parts.append(part)
        return parts

    def _read(self) -> Reading[None]:
        if self._form.bare:
            yield from self._try()
        while (yield from self._read_text()):
            yield from self._try()

    def _try(self) -> Reading[None]:
        """Read calls; where one is broken, give back what was not told yet."""
        source, calls = self._source, self._calls
        try:
            if self._form.bare:
                yield from source.skip_space()
            yield from self._form.read(calls)
        except Broken:
            if calls.open:
                calls.open = False
                yield CallBroken(calls.index)
            yield from self._say(source.at)

    def _say(self, end: int) -> Reading[None]:
        """Tell the text up to a place."""
        calls, source = self._calls, self._source
        text, calls.kept = source.text[calls.kept : end], end
        source.at = end
        if text:
            self._said = True
            yield Text(text)

    def _read_text(self) -> Reading[bool]:
        """Tell text until a call may open; return whether one does."""
        source, calls = self._source, self._calls
        while True:
            place = self._find_open()
            blanks = len(source.text[:place].rstrip())
            if calls.num_whole and not self._said:  # blanks around calls are not said
                calls.kept = max(calls.kept, place - len(source.text[calls.kept : place].lstrip()))
            if place < len(source.text) and self._is_open(place):
                yield from self._say(max(calls.kept, blanks))
                source.at = place
                return True
            if source.ended:
                yield from self._say_end()
                return False
            if blanks > calls.kept:
                yield from self._say(blanks)
            self._forget()
            yield None

    def _forget(self) -> None:
        """Drop what was told, but for the character before what comes next."""
        source, calls = self._source, self._calls
        done = max(0, calls.kept - 1)
        source.text, calls.kept = source.text[done:], calls.kept - done
        source.at = calls.kept

    def _say_end(self) -> Reading[None]:
        source, calls = self._source, self._calls
        if not calls.num_whole or source.text[calls.kept :].strip():
            yield from self._say(len(source.text))

    def _is_open(self, place: int) -> bool:
        return any(self._source.text.startswith(each, place) for each in self._form.opens)

    def _find_open(self) -> int:
        """Find where a call opens or may open once there is more text; else the text's end."""
        source = self._source
        first = len(source.text)
        for mark in self._form.opens:
            place = source.text.find(mark[0], source.at, first)
            while place >= 0:
                rest = source.text[place : place + len(mark)]
                unsure = mark.startswith(rest) and (len(rest) == len(mark) or not source.ended)
                if unsure and self._begins_line(place):
                    first = place
                    break
                place = source.text.find(mark[0], place + 1, first)
        return first

    def _begins_line(self, place: int) -> bool:
        if not self._form.line:
            return True
        return place == 0 or self._source.text[place - 1] == "\n"
