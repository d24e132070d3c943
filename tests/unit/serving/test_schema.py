"""What a request may hold is checked by field, and fast."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from tunesmith.errors import RequestError
from tunesmith.serving.schema.chat import ChatRequest
from tunesmith.serving.schema.completions import CompletionRequest
from tunesmith.serving.schema.messages import ChatMessage, plain_messages
from tunesmith.serving.schema.responses import ResponsesRequest, renamed
from tunesmith.serving.schema.sampling import whole_characters


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
        ChatMessage.model_validate({"role": "assistant", "content": "hi", name: [{"odd": "1"}]})


CALL: dict[str, Any] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Bern"}'},
}


def test_calls_and_results_are_read_as_templates_take_them() -> None:
    called = ChatMessage.model_validate({"role": "assistant", "tool_calls": [CALL]})
    assert called.plain() == {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {
                "id": "call_1",
                "type": "function",
                "function": {"name": "weather", "arguments": {"city": "Bern"}},
            }
        ],
    }
    result = ChatMessage.model_validate(
        {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}
    )
    assert result.plain() == {"role": "tool", "content": "sunny", "tool_call_id": "call_1"}


@pytest.mark.parametrize("arguments", ["[1]", "{", "text", "5"])
def test_arguments_that_are_no_object_are_refused(arguments: str) -> None:
    call = {**CALL, "function": {"name": "weather", "arguments": arguments}}
    message = ChatMessage.model_validate({"role": "assistant", "tool_calls": [call]})
    with pytest.raises(RequestError, match="no JSON object"):
        message.plain()


@pytest.mark.parametrize(
    ("role", "field", "value"),
    [
        ("user", "tool_calls", [CALL]),
        ("user", "tool_call_id", "1"),
        ("tool", "reasoning_content", "x"),
    ],
)
def test_fields_of_other_roles_are_refused(role: str, field: str, value: Any) -> None:
    message = ChatMessage.model_validate({"role": role, "content": "hi", field: value})
    with pytest.raises(RequestError, match=f"the role {role} has no {field}"):
        message.plain()


def request(**fields: Any) -> ChatRequest:
    return ChatRequest.model_validate({"messages": [{"role": "user", "content": "hi"}], **fields})


def test_reasoning_effort_becomes_the_option_that_the_template_has() -> None:
    low = request(reasoning_effort="low")
    assert low.template_options({"reasoning_effort"}) == {"reasoning_effort": "low"}
    assert low.template_options({"enable_thinking"}) == {"enable_thinking": True}
    off = request(reasoning_effort="none")
    assert off.template_options({"enable_thinking"}) == {"enable_thinking": False}
    with pytest.raises(RequestError, match="no option for reasoning_effort"):
        off.template_options({"other"})
    twice = request(reasoning_effort="low", chat_template_kwargs={"enable_thinking": False})
    with pytest.raises(RequestError, match="say the same"):
        twice.template_options({"enable_thinking"})


def test_no_text_is_taken_for_a_number() -> None:
    for field, value in (("max_tokens", "5"), ("temperature", "1"), ("stream", 1), ("n", True)):
        with pytest.raises(ValidationError, match=field):
            request(**{field: value})


def test_items_of_one_answer_become_one_message() -> None:
    body = ResponsesRequest.model_validate(
        {
            "instructions": "be brief",
            "input": [
                {"role": "user", "content": [{"type": "input_text", "text": "weather?"}]},
                {
                    "type": "reasoning",
                    "id": "rs_1",
                    "summary": [],
                    "content": [{"type": "reasoning_text", "text": "I must look"}],
                },
                {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
                {"type": "function_call", "call_id": "c2", "name": "time", "arguments": "{}"},
                {"type": "function_call_output", "call_id": "c1", "output": "sunny"},
                {"type": "message", "role": "assistant", "content": "It is sunny."},
                {"role": "user", "content": "thanks"},
            ],
        }
    )
    messages = [message.plain() for message in body.chat().messages]
    assert [message["role"] for message in messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "assistant",
        "user",
    ]
    assert messages[2]["reasoning_content"] == "I must look"
    assert [call["function"]["name"] for call in messages[2]["tool_calls"]] == ["weather", "time"]


@pytest.mark.parametrize("field", ["previous_response_id", "conversation", "background"])
def test_what_needs_kept_answers_is_refused(field: str) -> None:
    body = ResponsesRequest.model_validate({"input": "hi", field: True})
    with pytest.raises(RequestError, match=f"{field} is not taken"):
        body.check()


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"suffix": "x"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
    ],
)
def test_completions_refuse_what_cannot_be_done(fields: dict[str, Any], where: str) -> None:
    body = CompletionRequest.model_validate({"prompt": "hi", **fields})
    with pytest.raises(RequestError) as caught:
        body.check()
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("given", "parted"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
)
def test_prompts_come_in_four_forms(given: Any, parted: list[Any]) -> None:
    assert CompletionRequest.model_validate({"prompt": given}).prompts() == parted


def called(*ids: str) -> dict[str, Any]:
    calls = [{"id": each, "function": {"name": "now", "arguments": "{}"}} for each in ids]
    return {"role": "assistant", "tool_calls": calls}


def result(of: str | None, text: str) -> dict[str, Any]:
    return {"role": "tool", "content": text, "tool_call_id": of}


def read(*messages: dict[str, Any]) -> list[dict[str, Any]]:
    return plain_messages([ChatMessage.model_validate(message) for message in messages])


ASKED = {"role": "user", "content": "hi"}


def test_results_stand_in_the_order_of_their_calls() -> None:
    found = read(
        *(ASKED, called("a", "b"), result("b", "2"), result("a", "1"), ASKED),
        *(called("b", "a"), result("a", "4"), result("b", "3")),
    )
    told = [message["content"] for message in found if message["role"] == "tool"]
    assert told == ["1", "2", "3", "4"]
    assert [message["role"] for message in found[:5]] == [
        *("user", "assistant", "tool", "tool", "user")
    ]


def test_results_without_ids_stay_where_they_are() -> None:
    found = read(ASKED, called("a", "b"), result(None, "2"), result(None, "1"))
    assert [message["content"] for message in found[2:]] == ["2", "1"]


@pytest.mark.parametrize("before", [(), (called("a"),)])
def test_a_result_of_no_call_is_refused(before: tuple[dict[str, Any], ...]) -> None:
    with pytest.raises(RequestError, match="no call before it has the id 'z'") as refused:
        read(ASKED, *before, result("z", "1"))
    assert refused.value.where == f"messages.{len(before) + 1}.tool_call_id"


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"max_tokens": 8, "max_completion_tokens": 3}, "max_tokens"),
        ({"max_completion_tokens": 0}, "max_completion_tokens"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": -1}, "top_logprobs"),
    ],
)
def test_fields_that_contradict_each_other_or_mean_nothing_are_named(
    fields: dict[str, Any], where: str
) -> None:
    body = ChatRequest.model_validate({"messages": [ASKED], **fields})
    with pytest.raises(RequestError) as refused:
        body.check()
    assert refused.value.where == where
    assert where in refused.value.message


def test_lengths_that_say_the_same_are_one() -> None:
    both = {"max_tokens": 3, "max_completion_tokens": 3}
    body = ChatRequest.model_validate({"messages": [ASKED], **both})
    body.check()
    assert body.sampling()["max_tokens"] == 3


def test_a_response_may_be_asked_about_an_image() -> None:
    shown = {"type": "input_image", "image_url": "data:image/png;base64,aaaa", "detail": "auto"}
    said = {"type": "input_text", "text": "what is it?"}
    content: list[Any] = [said, shown]
    asked = {"input": [{"role": "user", "content": content}], "stream_options": {}}
    (message,) = ResponsesRequest.model_validate(asked).chat().messages
    assert message.plain()["media"] == [["image", "data:image/png;base64,aaaa", ""]]
    content.pop()
    (message,) = ResponsesRequest.model_validate(asked).chat().messages
    assert message.content == "what is it?"


@pytest.mark.parametrize(
    ("where", "here"),
    [
        ("max_tokens", "max_output_tokens"),
        ("response_format.type", "text.format.type"),
        ("response_format.json_schema.schema", "text.format.schema"),
        ("messages.3.content", "input"),
        ("tools.0.type", "tools.0.type"),
    ],
)
def test_a_response_names_its_own_fields(where: str, here: str) -> None:
    told = renamed(RequestError(f"{where} cannot be", hint="other", where=where))
    assert (told.where, told.message) == (here, f"{here} cannot be")
