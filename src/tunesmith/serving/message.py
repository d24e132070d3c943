"""The message of an answer, put together from its pieces: the one place that knows its parts."""

from __future__ import annotations

from typing import Any

from tunesmith.inference.generate import Finish

Delta = dict[str, Any]
"""What a message gains by a piece, as streams tell it."""


class Message:
    """One message while it is written."""

    def __init__(self) -> None:
        self._texts: list[str] = []

    def push(self, text: str) -> list[Delta]:
        """Add a piece of text; return what can be told of the message by now."""
        if not text:
            return []
        self._texts.append(text)
        return [{"content": text}]

    def end(self) -> list[Delta]:
        """Return what was held back until the answer was over."""
        return []

    def finish(self, reason: Finish) -> str:
        """Return why the message ended, in OpenAI's words."""
        return reason

    def whole(self) -> dict[str, Any]:
        """Return the message once it is over."""
        return {"role": "assistant", "content": "".join(self._texts), "refusal": None}
