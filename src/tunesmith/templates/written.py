"""Whether a template wrote all that a message holds; many write text only."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.templates.breaks import BREAK

OTHER = "name a template that does with model.template, such as chatml"


def left_out(message: Mapping[str, Any], text: str) -> str:
    """Say what of a message is missing in the text that a template wrote for it.

    Returns:
        nothing if all of it is there.
    """
    calls, reasoning = message.get("tool_calls", ()), message.get("reasoning_content", "")
    if message["role"] != "tool" and not calls and not reasoning:
        return ""
    text = text.replace(BREAK, "")
    for call in calls:
        name = call["function"]["name"]
        alike = sum(other["function"]["name"] == name for other in calls)
        if text.count(name) < alike or not all(map(text.__contains__, _keys(call))):
            return f"does not write the call of {name}; {OTHER}"
    if not _is_in(reasoning, text):
        return "writes no reasoning that stands apart from the answer; " + OTHER
    said = message["content"].rpartition("</think>")[2]
    if _is_in(said, text):
        return ""
    if message["role"] == "tool":
        return "does not write the results of tools; " + OTHER
    return "does not write what an answer says before it calls; " + OTHER


def _keys(call: Mapping[str, Any]) -> Iterator[str]:
    for key, value in call["function"]["arguments"].items():
        yield key if key.isascii() else ""
        yield value if isinstance(value, str) and value.isalnum() and value.isascii() else ""


def _is_in(part: str, text: str) -> bool:
    """Whether a text holds another one, as it is or as JSON spells it."""
    part = part.strip()
    spelled = (part, *(json.dumps(part, ensure_ascii=all_)[1:-1] for all_ in (False, True)))
    return any(way in text for way in spelled)
