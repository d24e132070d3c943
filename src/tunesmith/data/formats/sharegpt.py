"""ShareGPT: a list of messages whose roles and keys have names of their own."""

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
    quote,
    read_label,
    read_list,
    read_object,
    read_optional,
)
from tunesmith.data.formats.media import COLUMNS
from tunesmith.data.formats.messages import check_weight
from tunesmith.data.formats.tools import read_message, read_spelled_calls
from tunesmith.data.formats.turns import check_turns, make_pair, make_question
from tunesmith.data.rows import Call, Message, RowFault


def _matches(fields: Fields, tags: Names) -> bool:
    messages = fields.get("conversations")
    if isinstance(messages, str):
        return messages.lstrip().startswith("[")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and tags["role_tag"] in first


def _read(fields: Fields, tags: Names) -> tuple[Message, ...]:
    """Take the messages in turn; a system message among them wins over the system column."""
    return check_turns(_read_messages(fields, tags), join=True)


def _read_messages(fields: Fields, tags: Names) -> list[Message]:
    messages = [
        _read_message(value, f"message {number}", tags)
        for number, value in enumerate(read_list(fields, "conversations"), 1)
    ]
    system = read_optional(fields, "system")
    if system.strip() and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", system))
    return messages


def _matches_pair(fields: Fields, tags: Names) -> bool:
    return _matches(fields, tags) and "chosen" in fields and "rejected" in fields


def _read_pair(fields: Fields, tags: Names) -> Pair:
    """Take the messages up to the question; `chosen` and `rejected` are a message each."""
    asked = _read_messages(fields, tags)
    if asked and asked[-1].role == "assistant":
        raise RowFault("the conversation ends with an answer already, before the two")
    chosen, rejected = (_read_answer(fields, name, tags) for name in ("chosen", "rejected"))
    return make_pair(asked, chosen, rejected, join=True)


def _matches_judged(fields: Fields, tags: Names) -> bool:
    return _matches(fields, tags) and is_label(fields.get("label"))


def _read_judged(fields: Fields, tags: Names) -> Judgement:
    """Read the same, and whether the last answer is good."""
    return Judgement(check_weight(_read(fields, tags)), read_label(fields))


def _read_prompt(fields: Fields, tags: Names) -> Question:
    """Read the same; the last answer may be missing."""
    return make_question(_read_messages(fields, tags), join=True)


def _read_answer(fields: Fields, name: str, tags: Names) -> Message:
    if name not in fields:
        raise RowFault(f"`{name}` is missing")
    value = fields[name]
    if isinstance(value, str) and isinstance(fields.get("conversations"), str):
        value = read_object(value, f"`{name}`")  # a table spells both as JSON
    if not isinstance(value, dict):
        return Message("assistant", check_text(value, f"`{name}`"))
    answer = _read_message(value, f"`{name}`", tags)
    if answer.role != "assistant":
        role = quote(value[tags["role_tag"]])
        raise RowFault(f"`{name}` is of role {role}; expected {tags['assistant_tag']}")
    return answer


def _read_message(value: object, label: str, tags: Names) -> Message:
    if not isinstance(value, dict):
        raise RowFault(f"{label} is {describe(value)}, not an object")
    called = any(value.get(key) for key in ("tool_calls", "function_call"))
    for key in (tags["role_tag"], tags["content_tag"]):
        if key not in value and not (called and key == tags["content_tag"]):
            raise RowFault(f"{label} has no `{key}`")
    role = _read_role(value[tags["role_tag"]], label, tags)
    content = value.get(tags["content_tag"])
    text = "" if content is None and called else check_text(content, label)
    calls: list[Call] = []
    if role == "call":
        role, (text, calls) = "assistant", read_spelled_calls(text, label)
    return read_message(role, value, text, label, calls)


def _read_role(value: object, label: str, tags: Names) -> str:
    roles = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["system_tag"]: "system",
        tags["observation_tag"]: "tool",
        tags["function_tag"]: "call",
    }
    if isinstance(value, str) and value in roles:
        return roles[value]
    raise RowFault(
        f"{label} has the role {quote(value)}; expected {', '.join(roles)}, or what `tags` name"
    )


TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
    "observation_tag": "observation",
    "function_tag": "function_call",
}
SHAREGPT = Format(
    name="sharegpt",
    kind="conversation",
    columns={name: name for name in ("conversations", "system", "tools", *COLUMNS)},
    tags=TAGS,
    matches=_matches,
    read=_read,
)
SHAREGPT_PAIRS = Format(
    name="sharegpt_pairs",
    kind="preference",
    columns={
        name: name for name in ("conversations", "chosen", "rejected", "system", "tools", *COLUMNS)
    },
    tags=TAGS,
    matches=_matches_pair,
    read=_read_pair,
)
SHAREGPT_JUDGED = Format(
    name="sharegpt_judged",
    kind="judged",
    columns={**SHAREGPT.columns, "label": "label"},
    tags=TAGS,
    matches=_matches_judged,
    read=_read_judged,
)
SHAREGPT_PROMPTS = Format(
    name="sharegpt_prompts",
    kind="prompt",
    columns=SHAREGPT.columns,
    tags=TAGS,
    matches=_matches,
    read=_read_prompt,
)
