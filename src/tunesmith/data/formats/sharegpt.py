"""ShareGPT: a list of messages whose roles and keys have names of their own."""

from __future__ import annotations

from tunesmith.data.formats.format import (
    Fields,
    Format,
    Names,
    check_text,
    check_turns,
    describe,
    quote,
    read_list,
    read_optional,
    refuse_tools,
)
from tunesmith.data.rows import Message, RowFault


def _matches(fields: Fields, tags: Names) -> bool:
    messages = fields.get("conversations")
    if isinstance(messages, str):
        return messages.lstrip().startswith("[")
    first = messages[0] if isinstance(messages, list) and messages else None
    return isinstance(first, dict) and tags["role_tag"] in first


def _read(fields: Fields, tags: Names) -> tuple[Message, ...]:
    """Take the messages in turn; a system message among them wins over the system column."""
    refuse_tools(fields)
    messages = [
        _read_message(value, number, tags)
        for number, value in enumerate(read_list(fields, "conversations"), 1)
    ]
    system = read_optional(fields, "system")
    if system.strip() and not (messages and messages[0].role == "system"):
        messages.insert(0, Message("system", system))
    return check_turns(messages)


def _read_message(value: object, number: int, tags: Names) -> Message:
    if not isinstance(value, dict):
        raise RowFault(f"message {number} is {describe(value)}, not an object")
    for key in (tags["role_tag"], tags["content_tag"]):
        if key not in value:
            raise RowFault(f"message {number} has no `{key}`")
    role = _read_role(value[tags["role_tag"]], number, tags)
    return Message(role, check_text(value[tags["content_tag"]], f"message {number}"))


def _read_role(value: object, number: int, tags: Names) -> str:
    roles = {
        tags["user_tag"]: "user",
        tags["assistant_tag"]: "assistant",
        tags["system_tag"]: "system",
    }
    if isinstance(value, str) and value in roles:
        return roles[value]
    if isinstance(value, str) and value in (tags["observation_tag"], tags["function_tag"]):
        raise RowFault(f"message {number} is a tool's ({value}); tools are not supported yet")
    raise RowFault(f"message {number} has the role {quote(value)}; expected {', '.join(roles)}")


SHAREGPT = Format(
    name="sharegpt",
    kind="conversation",
    columns={name: name for name in ("conversations", "system", "tools")},
    tags={
        "role_tag": "from",
        "content_tag": "value",
        "user_tag": "human",
        "assistant_tag": "gpt",
        "system_tag": "system",
        "observation_tag": "observation",
        "function_tag": "function_call",
    },
    matches=_matches,
    read=_read,
)
