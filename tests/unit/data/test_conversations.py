"""What the fields of a row mean: ShareGPT and OpenAI messages."""

from __future__ import annotations

import json

import pytest

from tunesmith.data.formats import FORMATS
from tunesmith.data.rows import Message, RowFault

ROLES = {"messages": ("user", "assistant", "system"), "sharegpt": ("human", "gpt", "system")}
KEYS = {"messages": ("role", "content"), "sharegpt": ("from", "value")}
COLUMN = {"messages": "messages", "sharegpt": "conversations"}
SIDES = ("user", "assistant", "system")
every_format = pytest.mark.parametrize("name", ["messages", "sharegpt"])
Turn = tuple[str, object]


def spell(name: str, *turns: Turn, **more: object) -> dict[str, object]:
    """Write turns as a format spells them."""
    names = dict(zip(SIDES, ROLES[name], strict=True))
    role, content = KEYS[name]
    return {COLUMN[name]: [{role: names.get(r, r), content: c} for r, c in turns], **more}


def read(name: str, fields: dict[str, object]) -> list[tuple[str, str]]:
    content = FORMATS[name].read(fields, FORMATS[name].tags)
    return [(message.role, message.content) for message in content if isinstance(message, Message)]


def fault(name: str, fields: dict[str, object]) -> str:
    with pytest.raises(RowFault) as caught:
        read(name, fields)
    return str(caught.value)


TALK: list[tuple[str, str]] = [
    ("system", "be kind"),
    ("user", "hi"),
    ("assistant", "hello"),
    ("user", "why?\n"),
    ("assistant", " because"),
]


@every_format
def test_messages_are_read_in_turn(name: str) -> None:
    assert read(name, spell(name, *TALK)) == TALK
    assert read(name, spell(name, *TALK[1:])) == TALK[1:]


@every_format
def test_messages_may_be_spelled_as_json_in_a_cell_of_a_table(name: str) -> None:
    fields = spell(name, *TALK)
    cell = json.dumps(fields[COLUMN[name]])
    assert read(name, {COLUMN[name]: cell}) == TALK
    assert FORMATS[name].matches({COLUMN[name]: cell}, FORMATS[name].tags)


@every_format
def test_a_blank_system_message_is_left_out(name: str) -> None:
    assert read(name, spell(name, ("system", " "), *TALK[1:])) == TALK[1:]


def test_a_system_column_comes_first_unless_a_message_says_otherwise() -> None:
    fields = spell("sharegpt", *TALK[1:], system="from the column")
    assert read("sharegpt", fields)[0] == ("system", "from the column")
    both = spell("sharegpt", *TALK, system="from the column")
    assert read("sharegpt", both)[0] == ("system", "be kind")


ORDER_FAULTS: list[tuple[list[Turn], str]] = [
    ([], "the conversation ends without an answer"),
    ([("user", "a")], "the conversation ends without an answer"),
    ([("system", "a")], "the conversation ends without an answer"),
    ([("assistant", "a")], "message 1 is of role assistant; expected system or user"),
    ([("user", "a"), ("user", "b")], "message 2 is of role user; expected assistant"),
    (
        [("user", "a"), ("assistant", "b"), ("system", "c")],
        "message 3 is of role system; expected user",
    ),
    ([("system", "a"), ("system", "b")], "message 2 is of role system; expected user"),
    ([("user", " "), ("assistant", "b")], "the question in message 1 is empty"),
    ([("user", "a"), ("assistant", "")], "the answer in message 2 is empty"),
    ([("user", "a"), ("assistant", "b\x00")], "message 2 holds a NUL character at character 2"),
    ([("user", "a"), ("assistant", "\udc00")], "message 2 holds half of a character (U+DC00)"),
    ([("user", "a"), ("assistant", None)], "message 2 is null, not a text"),
    ([("user", 3), ("assistant", "b")], "message 1 is a number, not a text"),
]


@every_format
@pytest.mark.parametrize(("turns", "reason"), ORDER_FAULTS)
def test_a_conversation_out_of_order_says_where(name: str, turns: list[Turn], reason: str) -> None:
    assert fault(name, spell(name, *turns)).startswith(reason)


SHAPE_FAULTS: list[tuple[object, str]] = [
    ("hello", "`{column}` is a text, not a list"),
    ("[1", "`{column}` is a text, and not JSON either"),
    (None, "`{column}` is null, not a list"),
    ({"a": 1}, "`{column}` is an object, not a list"),
    (["hello"], "message 1 is a text, not an object"),
    ([[{}]], "message 1 is a list, not an object"),
    ([None], "message 1 is null, not an object"),
    ([{}], "message 1 has no `{role}`"),
    ([{"role": "user", "from": "human"}], "message 1 has no `{content}`"),
]


@every_format
@pytest.mark.parametrize(("value", "reason"), SHAPE_FAULTS)
def test_what_is_no_list_of_messages_says_how(name: str, value: object, reason: str) -> None:
    role, content = KEYS[name]
    expected = reason.format(column=COLUMN[name], role=role, content=content)
    assert fault(name, {COLUMN[name]: value}) == expected


@every_format
def test_a_missing_list_of_messages_is_named(name: str) -> None:
    assert fault(name, {"other": 1}) == f"`{COLUMN[name]}` is missing"


@every_format
def test_a_role_that_nobody_knows_is_quoted_with_the_known_ones(name: str) -> None:
    said = fault(name, spell(name, ("narrator\n\ud800", "a")))
    expected = {
        "messages": "system, developer, user, assistant, tool, function",
        "sharegpt": "human, gpt, system, observation, function_call, or what `tags` name",
    }
    assert said == f"message 1 has the role 'narrator\\u000a\\ud800'; expected {expected[name]}"


def nest(depth: int) -> object:
    value: object = "x"
    for _ in range(depth):
        value = [value]
    return value


@every_format
@pytest.mark.parametrize("role", [nest(5000), {"a": 1}, None, 7])
def test_a_role_that_is_no_text_is_named_by_its_kind(name: str, role: object) -> None:
    key, content = KEYS[name]
    said = fault(name, {COLUMN[name]: [{key: role, content: "x"}]})
    kinds = ("a list", "an object", "null", "a number")
    assert any(said.startswith(f"message 1 has the role {kind}; expected") for kind in kinds)


def test_columns_that_parquet_fills_with_null_do_no_harm() -> None:
    empty = {"tool_calls": None, "function_call": None, "weight": None, "name": None}
    turns = [{"role": role, "content": content, **empty} for role, content in TALK]
    assert read("messages", {"messages": turns, "tools": None}) == TALK


def test_a_developer_is_the_system_of_newer_models() -> None:
    assert read("messages", spell("messages", ("developer", "be kind"), *TALK[1:])) == TALK


def test_a_content_of_parts_is_their_text() -> None:
    parts = [{"type": "text", "text": "wh"}, {"type": "text", "text": "y?"}]
    fields = spell("messages", ("user", parts), ("assistant", "b"))
    assert read("messages", fields)[0] == ("user", "why?")


PART_FAULTS: list[tuple[object, str]] = [
    ([{"type": "image_file"}], "message 1 holds a part of type 'image_file'; only text, "),
    ([{"text": "a"}], "message 1 holds a part of type null; only text, reasoning, "),
    (["a"], "a part of message 1 is a text, not an object"),
    ([{"type": nest(5000)}], "message 1 holds a part of type a list; only text, reasoning"),
    ([{"type": "text", "text": 1}], "message 1 is a number, not a text"),
]


@pytest.mark.parametrize(("parts", "reason"), PART_FAULTS)
def test_a_part_that_is_no_text_is_refused(parts: object, reason: str) -> None:
    said = fault("messages", spell("messages", ("user", parts), ("assistant", "b")))
    assert said.startswith(reason)
