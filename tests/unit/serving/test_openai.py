"""OpenAI's own client talks to the server as it does to any other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.unit.serving import inside
from tests.unit.serving.running import Running
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model

MESSAGES: list[Any] = [{"role": "user", "content": "what is it?"}]


@pytest.fixture(scope="module")
def model(served_model: Path) -> ChatModel:
    return load_chat_model(served_model, precision="fp32", device="cpu")


def expected(model: ChatModel, messages: Any = MESSAGES, **sampling: Any) -> Any:
    """What the model itself says."""
    return answer(model, [encode_prompt(model, messages)], Sampling(**sampling))[0]


def test_a_chat_is_answered_as_the_model_answers(client: openai.OpenAI, model: ChatModel) -> None:
    given = expected(model, max_tokens=12)
    reply = client.chat.completions.create(model="tiny-chat", messages=MESSAGES, max_tokens=12)
    (choice,) = reply.choices
    assert choice.message.content == given.text
    assert choice.message.role == "assistant"
    assert (choice.index, choice.finish_reason) == (0, "length")
    assert (reply.object, reply.model) == ("chat.completion", "tiny-chat")
    assert reply.id.startswith("chatcmpl-")
    assert abs(reply.created - time.time()) < 60
    assert reply.usage is not None
    assert reply.usage.prompt_tokens == given.num_prompt_tokens
    assert reply.usage.completion_tokens == len(given.tokens) == 12
    assert reply.usage.total_tokens == given.num_prompt_tokens + 12


def test_a_conversation_of_several_turns_and_parts_is_read_whole(
    client: openai.OpenAI, model: ChatModel
) -> None:
    messages: list[Any] = [
        {"role": "developer", "content": "be brief"},
        {
            "role": "user",
            "content": [{"type": "text", "text": "你"}, {"type": "text", "text": "好"}],
        },
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and then?", "name": "ann"},
    ]
    plain = [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "你好"},
        {"role": "assistant", "content": "hi"},
        {"role": "user", "content": "and then?"},
    ]
    reply = client.chat.completions.create(model="tiny-chat", messages=messages, max_tokens=8)
    assert reply.choices[0].message.content == expected(model, plain, max_tokens=8).text


def test_an_answer_can_be_sent_back_as_it_came(client: openai.OpenAI) -> None:
    first = client.chat.completions.create(model="tiny-chat", messages=MESSAGES, max_tokens=4)
    message = first.choices[0].message
    empty = {"tool_calls": [], "annotations": [], "audio": None, "function_call": None}
    for spelled in (message, message.model_dump(), message.model_dump() | empty):
        talk: list[Any] = [*MESSAGES, spelled, {"role": "user", "content": "and then?"}]
        again = client.chat.completions.create(model="tiny-chat", messages=talk, max_tokens=4)
        assert again.choices[0].message.content


def test_a_stream_joined_is_the_whole_answer_and_tells_its_counts(
    client: openai.OpenAI,
) -> None:
    asked: dict[str, Any] = {"model": "tiny-chat", "messages": MESSAGES, "max_tokens": 12}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    *texts, last = chunks
    assert "".join(c.choices[0].delta.content or "" for c in texts) == (
        whole.choices[0].message.content
    )
    assert texts[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in texts] == [None] * (len(texts) - 1) + ["length"]
    assert len(texts) > 2
    assert last.choices == []
    counted = ("prompt_tokens", "completion_tokens", "total_tokens", "completion_tokens_details")
    for name in counted:
        assert getattr(last.usage, name) == getattr(whole.usage, name)
    assert {c.id for c in chunks} == {chunks[0].id}
    assert {c.object for c in chunks} == {"chat.completion.chunk"}
    assert all(c.usage is None for c in texts)


def test_a_stream_tells_no_counts_unless_asked(client: openai.OpenAI) -> None:
    chunks = client.chat.completions.create(
        model="tiny-chat", messages=MESSAGES, max_tokens=3, stream=True
    )
    assert all(len(chunk.choices) == 1 and chunk.usage is None for chunk in chunks)


def test_pieces_come_while_the_answer_is_written(client: openai.OpenAI) -> None:
    start = time.monotonic()
    with client.chat.completions.create(
        model="tiny-chat", messages=MESSAGES, max_tokens=400, stream=True
    ) as stream:
        times = [time.monotonic() - start for chunk in stream if chunk.choices[0].delta.content]
    assert times[0] < times[-1] / 4


@pytest.mark.parametrize("streaming", [False, True])
def test_an_answer_ends_before_a_stop_text(
    client: openai.OpenAI, model: ChatModel, streaming: bool
) -> None:
    text = expected(model, max_tokens=20).text
    stops = ["never found", text[4:6]]
    for stop in (stops, stops[1]):
        reply: Any = client.chat.completions.create(
            model="tiny-chat", messages=MESSAGES, max_tokens=20, stop=stop, stream=streaming
        )
        chunks = list(reply) if streaming else []
        said = "".join(c.choices[0].delta.content or "" for c in chunks)
        finish = chunks[-1].choices[0].finish_reason if streaming else None
        if not streaming:
            said, finish = reply.choices[0].message.content, reply.choices[0].finish_reason
        assert (said, finish) == (text[: text.find(stops[1])], "stop")


def test_the_same_seed_gives_the_same_answer(client: openai.OpenAI) -> None:
    def draw(seed: int | None) -> str | None:
        reply = client.chat.completions.create(
            model="tiny-chat", messages=MESSAGES, max_tokens=16, temperature=1.0, seed=seed
        )
        return reply.choices[0].message.content

    assert draw(7) == draw(7)
    assert len({draw(7), draw(8), draw(None), draw(None)}) == 4


def test_options_reach_the_engine(
    client: openai.OpenAI, model: ChatModel, served_model: Path
) -> None:
    reply = client.chat.completions.create(
        model="tiny-chat",
        messages=MESSAGES,
        max_completion_tokens=10,
        temperature=1.5,
        top_p=0.8,
        seed=3,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={"40": 1.5},
        extra_body={"top_k": 30, "min_p": 0.01, "repetition_penalty": 1.3},
    )
    sampling = Sampling(
        max_tokens=10,
        temperature=1.5,
        top_p=0.8,
        top_k=30,
        min_p=0.01,
        repetition_penalty=1.3,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={40: 1.5},
        seed=3,
    )
    text = inside.heard(served_model, encode_prompt(model, MESSAGES), sampling)
    assert reply.choices[0].message.content == text


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
def test_answers_are_cut_at_the_limit(client: openai.OpenAI, field: str) -> None:
    options: dict[str, Any] = {field: 3}
    reply = client.chat.completions.create(model="tiny-chat", messages=MESSAGES, **options)
    assert reply.usage is not None
    assert reply.usage.completion_tokens == 3
    assert reply.choices[0].finish_reason == "length"


def test_the_one_model_is_listed(client: openai.OpenAI) -> None:
    assert [entry.id for entry in client.models.list()] == ["tiny-chat"]
    assert client.models.retrieve("tiny-chat").owned_by == "tunesmith"
    with pytest.raises(openai.NotFoundError, match="there is no model 'org/gpt' here"):
        client.models.retrieve("org/gpt")


def test_another_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="gpt-4o", messages=MESSAGES)
    assert caught.value.body == {
        "message": "there is no model 'gpt-4o' here",
        "where": "model",
        "hint": "the one that is served is 'tiny-chat'",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }


@pytest.mark.parametrize(
    ("name", "value", "hint"),
    [
        ("functions", [{"name": "f"}], "use tools"),
        ("function_call", "auto", "use tool_choice"),
        ("top_logprobs", 3, 'send "logprobs": true with it'),
        ("reasoning_effort", "low", "leave it out"),
        ("stream_options", {"include_usage": True}, 'send "stream": true with it, or leave it out'),
    ],
)
def test_what_has_no_effect_is_refused_by_name(
    client: openai.OpenAI, name: str, value: Any, hint: str
) -> None:
    options: dict[str, Any] = {name: value}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="tiny-chat", messages=MESSAGES, **options)
    body: Any = caught.value.body
    assert name in body["message"]
    assert (body["where"], body["hint"]) == (name, hint)


def test_options_that_the_template_does_not_know_are_refused(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="no option enable_thinking") as caught:
        client.chat.completions.create(
            model="tiny-chat",
            messages=MESSAGES,
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        )
    body: Any = caught.value.body
    assert body["hint"] == "it has: none"


def test_a_bias_of_no_token_is_refused(client: openai.OpenAI) -> None:
    for bias, told in (({"5000": 1}, "there is no token 5000"), ({"the": 1}, "is no id")):
        with pytest.raises(openai.BadRequestError, match=told):
            client.chat.completions.create(
                model="tiny-chat", messages=MESSAGES, logit_bias=bias, max_tokens=2
            )


def test_what_changes_nothing_is_accepted(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(
        model="tiny-chat",
        messages=MESSAGES,
        max_tokens=2,
        n=1,
        logprobs=False,
        presence_penalty=0,
        frequency_penalty=0.0,
        response_format={"type": "text"},
        tools=[],
        tool_choice="auto",
        user="ann",
        metadata={"a": "b"},
        store=False,
    )
    assert reply.choices[0].message.content


def test_a_prompt_that_is_too_long_is_refused_before_the_stream_begins(
    client: openai.OpenAI, server: Running
) -> None:
    long: list[Any] = [{"role": "user", "content": "x " * 20_000}]
    for streaming in (False, True):
        with pytest.raises(openai.BadRequestError, match="the model takes 20,000 with its answer"):
            client.chat.completions.create(model="tiny-chat", messages=long, stream=streaming)
