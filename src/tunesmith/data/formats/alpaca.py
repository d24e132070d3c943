"""Alpaca: instruction, input, output, and optionally system and history."""

from __future__ import annotations

from tunesmith.data.formats.format import (
    Fields,
    Format,
    Judgement,
    Names,
    Pair,
    Question,
    check_text,
    describe,
    is_label,
    read_label,
    read_list,
    read_optional,
    read_text,
)
from tunesmith.data.formats.media import COLUMNS
from tunesmith.data.formats.turns import make_pair, make_question
from tunesmith.data.rows import Message, RowFault


def _matches(fields: Fields, tags: Names) -> bool:
    return "instruction" in fields and "output" in fields


def _read(fields: Fields, tags: Names) -> tuple[Message, ...]:
    """Ask `instruction`, a newline and `input`; answer `output`."""
    asked = _read_question(fields)
    answer = read_text(fields, "output") if fields.get("output", "") is not None else ""
    if not answer.strip():
        raise RowFault("the answer is empty: `output` has no text")
    return (*asked, Message("assistant", answer))


def _read_question(fields: Fields) -> list[Message]:
    """Read everything up to the question."""
    instruction = read_text(fields, "instruction")
    context = read_optional(fields, "input")
    question = "\n".join(part for part in (instruction, context) if part.strip())
    if not question:
        raise RowFault("the question is empty: neither `instruction` nor `input` has text")
    system = read_optional(fields, "system")
    messages = [Message("system", system)] if system.strip() else []
    return [*messages, *_read_history(fields), Message("user", question)]


def _matches_pair(fields: Fields, tags: Names) -> bool:
    return "instruction" in fields and "chosen" in fields and "rejected" in fields


def _read_pair(fields: Fields, tags: Names) -> Pair:
    """Ask the same; `chosen` is the better answer and `rejected` the worse."""
    asked = _read_question(fields)
    chosen, rejected = (read_text(fields, name) for name in ("chosen", "rejected"))
    return make_pair(asked, Message("assistant", chosen), Message("assistant", rejected))


def _matches_judged(fields: Fields, tags: Names) -> bool:
    return _matches(fields, tags) and is_label(fields.get("label"))


def _read_judged(fields: Fields, tags: Names) -> Judgement:
    """Read the same, and whether the answer is good."""
    return Judgement(_read(fields, tags), read_label(fields))


def _matches_prompt(fields: Fields, tags: Names) -> bool:
    return "instruction" in fields and "output" not in fields


def _read_prompt(fields: Fields, tags: Names) -> Question:
    """Ask the same; `output` may be missing."""
    asked = make_question(_read_question(fields))
    answer = read_optional(fields, "output")
    return Question(asked.messages, answer if answer.strip() else None)


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
        name: name
        for name in ("instruction", "input", "output", "system", "history", "tools", *COLUMNS)
    },
    tags={},
    matches=_matches,
    read=_read,
)
ALPACA_PAIRS = Format(
    name="alpaca_pairs",
    kind="preference",
    columns={
        name: name
        for name in (
            *("instruction", "input", "chosen", "rejected", "system", "history", "tools"),
            *COLUMNS,
        )
    },
    tags={},
    matches=_matches_pair,
    read=_read_pair,
)
ALPACA_JUDGED = Format(
    name="alpaca_judged",
    kind="judged",
    columns={**ALPACA.columns, "label": "label"},
    tags={},
    matches=_matches_judged,
    read=_read_judged,
)
ALPACA_PROMPTS = Format(
    name="alpaca_prompts",
    kind="prompt",
    columns=ALPACA.columns,
    tags={},
    matches=_matches_prompt,
    read=_read_prompt,
)
