"""What a request may hold is checked by field, and fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith.errors import RequestError
from tunesmith.serving.schema import ChatMessage, ChatRequest, whole_characters


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_a_long_text_is_checked_faster_than_its_characters_are_counted() -> None:
    text = "ab" * 1_000_000
    counted = min(seconds(lambda: sum(1 for _ in text)) for _ in range(3))
    assert min(seconds(lambda: whole_characters(text)) for _ in range(3)) < counted / 4


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "\ud83d" * 2])
def test_half_a_character_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="half a character"):
        whole_characters(text)


@pytest.mark.parametrize("text", ["", "a\0", "𠮷野家", "😀"])
def test_whole_characters_stay_as_they_are(text: str) -> None:
    assert whole_characters(text) == text


EMPTY: dict[str, Any] = {
    "refusal": None,
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": [],
}


def test_empty_fields_of_an_answer_may_be_sent_back() -> None:
    message = ChatMessage.model_validate({"role": "assistant", "content": "hi", **EMPTY})
    assert message.plain() == {"role": "assistant", "content": "hi"}


@pytest.mark.parametrize("name", EMPTY)
def test_what_they_hold_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        ChatMessage.model_validate({"role": "assistant", "content": "hi", name: [{"id": "1"}]})


@pytest.mark.parametrize(
    ("choice", "fine"), [(None, True), ("none", True), ("auto", True), ("required", False)]
)
def test_a_tool_that_must_be_called_is_refused(choice: str | None, fine: bool) -> None:
    messages = [ChatMessage(role="user", content="hi")]
    request = ChatRequest(messages=messages, tool_choice=choice)
    if fine:
        request.check()
        return
    with pytest.raises(RequestError, match="tool_choice is not supported yet"):
        request.check()
