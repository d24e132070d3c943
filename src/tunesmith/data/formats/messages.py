"""OpenAI messages: role and content, as their API takes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from tunesmith.data.formats.format import (
    Fields,
    Format,
    Judgement,
    Names,
    Question,
    check_text,
    describe,
    is_label,
    quote,
    read_label,
    read_list,
    read_optional,
)
from tunesmith.data.formats.media import COLUMNS, is_shown, read_shown
from tunesmith.data.formats.media import PARTS as SHOWN
from tunesmith.data.formats.tools import read_message, read_spelled_calls
from tunesmith.data.formats.turns import check_turns, make_question
from tunesmith.data.rows import Call, Medium, Message, RowFault
from tunesmith.templates import PLACES

ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}
PARTS = {"text": "text", "reasoning": "value", "tool_call": "value"}
"""Kinds of parts, and where the text of each lies; text may lie in `value` too."""


def matches_messages(fields: Fields, tags: Names) -> bool:
    """Whether a row holds messages with roles."""
    messages = fields.get("messages")
    if isinstance(messages, str):
        return messages.lstrip().startswith("[")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and "role" in first


def _read(fields: Fields, tags: Names) -> tuple[Message, ...]:
    return check_turns(read_messages(fields))


def read_messages(fields: Fields) -> list[Message]:
    """Read the column `messages`; a system message among them wins over the system column."""
    return with_system(_read_listed(read_list(fields, "messages")), fields)


def with_system(messages: list[Message], fields: Fields) -> list[Message]:
    """Put the system column first, where the messages begin with no system message."""
    system = fields.get("system")
    if (
        not isinstance(system, str)
        or not system.strip()
        or (messages and messages[0].role == "system")
    ):
        return messages
    return [Message("system", system), *messages]


def _read_listed(values: Sequence[object], of: str = "") -> list[Message]:
    return [read_one(value, f"message {number}{of}") for number, value in enumerate(values, 1)]


def _read_messages_prompt(fields: Fields, tags: Names) -> Question:
    """Read the same; the last answer may be missing."""
    return make_question(read_messages(fields))


def _matches_prompt(fields: Fields, tags: Names) -> bool:
    return "prompt" in fields and not {"completion", "chosen"} & fields.keys()


def _read_prompt(fields: Fields, tags: Names) -> Question:
    """Ask `prompt`, a text or a list of messages; `answer` may be missing."""
    asked = make_question(with_system(read_side(fields, "prompt", "user"), fields))
    if asked.reference is not None:
        raise RowFault("`prompt` ends with an answer, not with a question")
    answer = read_optional(fields, "answer")
    return Question(asked.messages, answer if answer.strip() else None)


def _matches_judged(fields: Fields, tags: Names) -> bool:
    return matches_messages(fields, tags) and is_label(fields.get("label"))


def _read_judged(fields: Fields, tags: Names) -> Judgement:
    """Read the same, and whether the last answer is good."""
    return Judgement(check_weight(_read(fields, tags)), read_label(fields))


def check_weight(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """Refuse a weight of an answer that is judged whole.

    Raises:
        RowFault: if the last answer has one.
    """
    if messages[-1].weight != 1:
        raise RowFault("its answer has a weight, and is judged whole")
    return messages


def _matches_completion(fields: Fields, tags: Names) -> bool:
    return "prompt" in fields and "completion" in fields


def _read_completion(fields: Fields, tags: Names) -> tuple[Message, ...]:
    """Ask `prompt` and answer `completion`, each a text or a list of messages."""
    asked, answer = (
        read_side(fields, "prompt", "user"),
        read_side(fields, "completion", "assistant"),
    )
    if len(answer) != 1:
        raise RowFault(f"`completion` holds {len(answer)} messages, not one answer")
    return check_turns(with_system([*asked, *answer], fields))


def _read_completion_prompt(fields: Fields, tags: Names) -> Question:
    """Ask `prompt`; rewards are given `answer`, or else the completion, which may be missing."""
    if read_optional(fields, "answer").strip() or not fields.get("completion"):
        return _read_prompt(fields, tags)
    return make_question(_read_completion(fields, tags))


def _matches_completion_judged(fields: Fields, tags: Names) -> bool:
    return _matches_completion(fields, tags) and is_label(fields.get("label"))


def _read_completion_judged(fields: Fields, tags: Names) -> Judgement:
    """Read the same, and whether it is good."""
    return Judgement(check_weight(_read_completion(fields, tags)), read_label(fields))


def read_side(fields: Fields, name: str, role: str) -> list[Message]:
    """Read a column that is a text of that role, a message or a list of messages."""
    value = fields.get(name)
    if isinstance(value, str):
        listed = spelled_messages(value)
        if listed is None:
            return [Message(role, check_text(value, f"`{name}`"))]
        return _read_listed(listed, f" of `{name}`")
    if isinstance(value, dict):
        return [read_one(value, f"`{name}`")]
    return _read_listed(read_list(fields, name), f" of `{name}`")


def spelled_messages(text: str) -> list[object] | None:
    """Return messages that a table spells as JSON; None for any other text."""
    if not text.lstrip().startswith("["):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not (isinstance(found, list) and found):
        return None
    return found if all(isinstance(one, dict) and "role" in one for one in found) else None


def read_one(value: object, label: str) -> Message:
    """Read a message.

    Raises:
        RowFault: naming what is wrong with it.
    """
    if not isinstance(value, dict):
        raise RowFault(f"{label} is {describe(value)}, not an object")
    if "role" not in value:
        raise RowFault(f"{label} has no `role`")
    role = value["role"]
    if not isinstance(role, str) or role not in ROLES:
        raise RowFault(f"{label} has the role {quote(role)}; expected {', '.join(ROLES)}")
    called = any(value.get(key) for key in ("tool_calls", "function_call"))
    if "content" not in value and not called:
        raise RowFault(f"{label} has no `content`")
    parts = _read_content(value.get("content"), label, called=called)
    if parts.reasoning:
        value = {**value, "reasoning_content": parts.reasoning}
    content = None if parts.calls and not parts.text else parts.text
    message = read_message(ROLES[role], value, content, label, parts.calls)
    return replace(message, media=tuple(parts.media)) if parts.media else message


@dataclass
class _Parts:
    """What the parts of a message hold."""

    text: str = ""
    reasoning: str = ""
    calls: list[Call] = field(default_factory=list)
    media: list[Medium] = field(default_factory=list)


def _read_content(content: object, label: str, *, called: bool) -> _Parts:
    """Read a message's text, or its parts."""
    if not isinstance(content, list):
        return _Parts("" if content is None and called else check_text(content, label))
    found = _Parts()
    for part in content:
        if not isinstance(part, dict):
            raise RowFault(f"a part of {label} is {describe(part)}, not an object")
        kind = part.get("type")
        if is_shown(kind):
            found.media.append(read_shown(part, label))
            found.text += PLACES[found.media[-1].kind]
            continue
        if not isinstance(kind, str) or kind not in PARTS:
            known = ", ".join([*PARTS, *SHOWN])
            raise RowFault(
                f"{label} holds a part of type {quote(kind)}; only {known} are supported"
            )
        text = check_text(part.get(PARTS[kind], part.get("value")), label)
        if kind == "tool_call":
            found.calls += read_spelled_calls(text, label)[1]
        elif kind == "text":
            found.text += text
        else:
            found.reasoning += text
    return found


MESSAGES = Format(
    name="messages",
    kind="conversation",
    columns={name: name for name in ("messages", "system", "tools", *COLUMNS)},
    tags={},
    matches=matches_messages,
    read=_read,
)
MESSAGES_JUDGED = Format(
    name="messages_judged",
    kind="judged",
    columns={**MESSAGES.columns, "label": "label"},
    tags={},
    matches=_matches_judged,
    read=_read_judged,
)
COMPLETION = Format(
    name="completion",
    kind="conversation",
    columns={name: name for name in ("prompt", "completion", "system", "tools", *COLUMNS)},
    tags={},
    matches=_matches_completion,
    read=_read_completion,
)
COMPLETION_JUDGED = Format(
    name="completion_judged",
    kind="judged",
    columns={**COMPLETION.columns, "label": "label"},
    tags={},
    matches=_matches_completion_judged,
    read=_read_completion_judged,
)
COMPLETION_PROMPTS = Format(
    name="completion_prompts",
    kind="prompt",
    columns={**COMPLETION.columns, "answer": "answer"},
    tags={},
    matches=_matches_completion,
    read=_read_completion_prompt,
)
MESSAGES_PROMPTS = Format(
    name="messages_prompts",
    kind="prompt",
    columns=MESSAGES.columns,
    tags={},
    matches=matches_messages,
    read=_read_messages_prompt,
)
PROMPTS = Format(
    name="prompts",
    kind="prompt",
    columns={name: name for name in ("prompt", "answer", "system", "tools", *COLUMNS)},
    tags={},
    matches=_matches_prompt,
    read=_read_prompt,
)
