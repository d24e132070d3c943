"""A form that another process holds an answer to, and our watch over what it writes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from tunesmith.errors import EngineError, require
from tunesmith.inference.text_stream import UNFINISHED


class Sent:
    """A form to which an engine's own server holds an answer.

    What a server does not know it leaves out in silence, so the answer is read along, byte by
    byte.

    Args:
        fields: what the server is asked besides.
        grammar: what the text of the answer must be, in llguidance's words.
    """

    def __init__(self, fields: Mapping[str, Any], grammar: str) -> None:
        self.fields = fields
        matcher = require("llguidance", extra="serve").LLMatcher
        self._matcher = matcher(_bytes(), grammar, log_level=0)
        self._marked = ""

    def take(self, text: str) -> None:
        """Go on by a text; the mark of an unfinished character counts if anything follows.

        Raises:
            EngineError: if it leaves the form.
        """
        text = self._marked + text
        whole = text.rstrip(UNFINISHED)
        self._marked = text[len(whole) :]
        self._read(whole)

    def end(self) -> None:
        """Note that the answer is over by itself.

        Raises:
            EngineError: if the form is not complete.
        """
        self._read(self._marked)
        if not self._matcher.is_accepting():
            raise _left("it ends before the form is complete")

    def is_over(self) -> bool:
        """Whether nothing may follow but the end."""
        return not self._marked and bool(self._matcher.is_stopped())

    def _read(self, text: str) -> None:
        if text and not self._matcher.consume_tokens([*text.encode()]):
            raise _left("what it writes leaves the form")


def _left(how: str) -> EngineError:
    return EngineError(
        f"the server does not hold its answer to the form: {how}",
        hint="ask for a simpler form, or serve with --engine own",
        where="response_format",
    )


@lru_cache(maxsize=1)
def _bytes() -> Any:
    """Return a vocabulary whose tokens are the bytes."""
    return require("llguidance", extra="serve").LLTokenizer("byte")
