"""Alpaca: instruction, input, output, and optionally system and history."""

from __future__ import annotations

from tunesmith.data.formats.format import (
    Fields,
    Format,
    Names,
    check_text,
    describe,
    read_list,
    read_optional,
    read_text,
    refuse_tools,
)
from tunesmith.data.rows import Message, RowFault


def _matches(fields: Fields, tags: Names) -> bool:
    return "instruction" in fields and "output" in fields


def _read(fields: Fields, tags: Names) -> tuple[Message, ...]:
    """Ask `instruction`, a newline and `input`; answer `output`."""
    refuse_tools(fields)
    instruction = read_text(fields, "instruction")
    context = read_optional(fields, "input")
    answer = read_text(fields, "output") if fields.get("output", "") is not None else ""
    question = "\n".join(part for part in (instruction, context) if part.strip())
    if not question:
        raise RowFault("the question is empty: neither `instruction` nor `input` has text")
    if not answer.strip():
        raise RowFault("the answer is empty: `output` has no text")
    system = read_optional(fields, "system")
    messages = [Message("system", system)] if system.strip() else []
    messages += _read_history(fields)
    return (*messages, Message("user", question), Message("assistant", answer))


def _read_history(fields: Fields) -> list[Message]:
    if fields.get("history") in (None, ""):
        return []
    messages: list[Message] = []
    for number, turn in enumerate(read_list(fields, "history"), 1):
        label = f"`history` entry {number}"
        if not isinstance(turn, list):
            raise RowFault(f"{label} is {describe(turn)}, not a list of question and answer")
        if len(turn) != 2:
            raise RowFault(f"{label} has {len(turn)} texts, not question and answer")
        for role, side, value in zip(
            ("user", "assistant"), ("question", "answer"), turn, strict=True
        ):
            text = check_text(value, f"the {side} of {label}")
            if not text.strip():
                raise RowFault(f"the {side} of {label} is empty")
            messages.append(Message(role, text))
    return messages


ALPACA = Format(
    name="alpaca",
    kind="conversation",
    columns={
        name: name for name in ("instruction", "input", "output", "system", "history", "tools")
    },
    tags={},
    matches=_matches,
    read=_read,
)
