"""Forms in the words of servers elsewhere, and what of them is seen in the text that comes back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.inference.structured import Calling, Outline, Wanted
from tunesmith.inference.structured.lark import ANY, ANYTHING

CALL = "/(?s:.*)<tool_call>(?s:.*)/"
"""How a call is spelled in our text of an answer that was parted elsewhere."""


def forms_on_wire(outline: Outline) -> dict[str, Any]:
    """Return the fields that ask for a form: OpenAI's, and vLLM's where that has none.

    Raises:
        RequestError: if no answer can be held to it, naming the field.
    """
    for each in (outline.wanted, outline.calling):
        if each is not None:
            each.check()
    asked = {} if outline.wanted is None else _wanted_on_wire(outline.wanted)
    calling = outline.calling
    if calling is not None and not calling.many:
        asked["parallel_tool_calls"] = False
    if calling is not None and outline.must_call:
        asked["tool_choice"] = _choice(calling)
    return asked


def _wanted_on_wire(wanted: Wanted) -> dict[str, Any]:
    if wanted.kind != "json":
        return {"structured_outputs": {wanted.kind: wanted.value}}
    if wanted.value == {"type": "object"}:
        return {"response_format": {"type": "json_object"}}
    value = wanted.value if isinstance(wanted.value, Mapping) else {}
    schema = {"name": "answer", "schema": value, "strict": True}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _choice(calling: Calling) -> Any:
    if len(calling.tools) > 1:
        return "required"
    return {"type": "function", "function": {"name": calling.tools[0]["function"]["name"]}}


def seen_by_us(outline: Outline) -> str:
    """Write the grammar of what is seen of a form; of a call, no more than that there is one."""
    if outline.calling is not None:
        return f"start: {CALL if outline.must_call else ANYTHING}\n"
    return outline.grammar({}, ANY)
