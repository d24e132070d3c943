"""What the fields of a row mean: alpaca and plain text."""

from __future__ import annotations

import json

import pytest

from tunesmith.data.formats import FORMATS
from tunesmith.data.rows import Message, RowFault

ALPACA = {"instruction": "why?", "input": "", "output": "because"}


def alpaca(**fields: object) -> list[tuple[str, str]]:
    content = FORMATS["alpaca"].read({**ALPACA, **fields}, {})
    return [(message.role, message.content) for message in content if isinstance(message, Message)]


def fault(name: str, fields: dict[str, object]) -> str:
    known = FORMATS[name]
    with pytest.raises(RowFault) as caught:
        known.read(fields, known.tags)
    return str(caught.value)


def test_instruction_and_output_are_question_and_answer() -> None:
    assert alpaca() == [("user", "why?"), ("assistant", "because")]


def test_the_input_goes_on_a_line_of_its_own() -> None:
    assert alpaca(input="the sky")[0] == ("user", "why?\nthe sky")


def test_either_instruction_or_input_may_be_the_question() -> None:
    assert alpaca(instruction="", input="the sky")[0] == ("user", "the sky")
    assert alpaca(input=None)[0] == ("user", "why?")


def test_texts_are_never_stripped() -> None:
    assert alpaca(instruction=" why? \n", output="\n because ") == [
        ("user", " why? \n"),
        ("assistant", "\n because "),
    ]


def test_a_system_text_comes_first_and_a_blank_one_not_at_all() -> None:
    assert alpaca(system="be kind")[0] == ("system", "be kind")
    assert len(alpaca(system=" ")) == len(alpaca(system=None)) == 2


@pytest.mark.parametrize("spelled", [False, True])
def test_history_comes_before_the_question(spelled: bool) -> None:
    history = [["hi", "hello"], ["how?", "so"]]
    messages = alpaca(history=json.dumps(history) if spelled else history, system="be kind")
    assert [content for _, content in messages] == [
        "be kind", "hi", "hello", "how?", "so", "why?", "because"
    ]  # fmt: skip
    assert [role for role, _ in messages[1:]] == ["user", "assistant"] * 3


@pytest.mark.parametrize("empty", [None, "", [], "[]"])
def test_no_history_may_be_written_in_many_ways(empty: object) -> None:
    assert len(alpaca(history=empty)) == 2


ALPACA_FAULTS: list[tuple[dict[str, object], str]] = [
    ({"instruction": 5}, "`instruction` is a number, not a text"),
    ({"instruction": None}, "`instruction` is null, not a text"),
    ({"output": None}, "the answer is empty: `output` has no text"),
    ({"output": ["a"]}, "`output` is a list, not a text"),
    ({"output": {"a": 1}}, "`output` is an object, not a text"),
    ({"output": True}, "`output` is true or false, not a text"),
    ({"input": 1.5}, "`input` is a number, not a text"),
    ({"system": []}, "`system` is a list, not a text"),
    ({"output": " \n"}, "the answer is empty: `output` has no text"),
    ({"instruction": " "}, "the question is empty: neither `instruction` nor `input` has text"),
    ({"output": "a\x00b"}, "`output` holds a NUL character at character 2"),
    ({"instruction": "ab\ud83d"}, "`instruction` holds half of a character (U+D83D) at character"),
    ({"output": "\ufdd0"}, "`output` holds the reserved character U+FDD0 at character 1"),
    ({"history": "hello"}, "`history` is a text, not a list"),
    ({"history": "[oops"}, "`history` is a text, and not JSON either"),
    ({"history": "[" * 100_000}, "`history` is a text, and not JSON either"),
    ({"history": {"a": "b"}}, "`history` is an object, not a list"),
    ({"history": [["a", "b"], "c"]}, "`history` entry 2 is a text, not a list of question"),
    ({"history": [["a"]]}, "`history` entry 1 has 1 texts, not question and answer"),
    ({"history": [["a", "b", "c"]]}, "`history` entry 1 has 3 texts, not question and answer"),
    ({"history": [[["a"], "b"]]}, "the question of `history` entry 1 is a list, not a text"),
    ({"history": [["a", None]]}, "the answer of `history` entry 1 is null, not a text"),
    ({"history": [["", "b"]]}, "the question of `history` entry 1 is empty"),
    ({"history": [["a", " "]]}, "the answer of `history` entry 1 is empty"),
]


@pytest.mark.parametrize(("fields", "reason"), ALPACA_FAULTS)
def test_an_alpaca_row_that_is_wrong_says_how(fields: dict[str, object], reason: str) -> None:
    assert fault("alpaca", {**ALPACA, **fields}).startswith(reason)


@pytest.mark.parametrize("name", ["instruction", "output"])
def test_a_missing_column_is_named(name: str) -> None:
    fields = {key: value for key, value in ALPACA.items() if key != name}
    assert fault("alpaca", fields) == f"`{name}` is missing"


def test_a_text_row_is_its_text() -> None:
    assert FORMATS["text"].read({"text": " some\ntext "}, {}) == " some\ntext "


TEXT_FAULTS: list[tuple[dict[str, object], str]] = [
    ({}, "`text` is missing"),
    ({"text": None}, "`text` is null, not a text"),
    ({"text": "\n "}, "the text is empty"),
    ({"text": "a\x00"}, "`text` holds a NUL character at character 2"),
]


@pytest.mark.parametrize(("fields", "reason"), TEXT_FAULTS)
def test_a_text_row_that_is_wrong_says_how(fields: dict[str, object], reason: str) -> None:
    assert fault("text", fields) == reason
