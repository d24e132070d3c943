"""What any server of OpenAI's API must do; `TUNESMITH_OPENAI_URL` points it at another one."""

from __future__ import annotations

import base64
import math
import struct
from typing import Any

import openai
import pytest
from openai.types import Completion, CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response

from tests.unit.serving.accepted import Theirs, chunks_of, events_of, strictly

MESSAGES: list[Any] = [{"role": "user", "content": "what is it?"}]
CHAT = "/chat/completions"


def chat(theirs: Theirs, **options: Any) -> Any:
    """Ask for a short answer."""
    asked = {"messages": MESSAGES, "max_tokens": 12, "temperature": 0, **options}
    return theirs.client.chat.completions.create(model=theirs.model, **asked)


def text_of(chunks: list[Any], index: int = 0) -> str:
    return "".join(
        choice.delta.content or ""
        for chunk in chunks
        for choice in chunk.choices
        if choice.index == index
    )


def test_an_answer_is_what_openai_publishes(theirs: Theirs) -> None:
    body = {"messages": MESSAGES, "max_tokens": 5, "logprobs": True, "top_logprobs": 2, "n": 2}
    found = strictly(ChatCompletion, theirs.post(CHAT, body))
    assert [choice.index for choice in found.choices] == [0, 1]
    assert found.usage is not None
    assert found.usage.total_tokens == found.usage.prompt_tokens + found.usage.completion_tokens


def test_chunks_are_what_openai_publishes(theirs: Theirs) -> None:
    body = {
        "messages": MESSAGES,
        "max_tokens": 5,
        "logprobs": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    *chunks, last = chunks_of(ChatCompletionChunk, theirs.post(CHAT, body))
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [chunk.choices[0].finish_reason for chunk in chunks][-1] == "length"
    assert (last.choices, bool(last.usage)) == ([], True)


def test_a_stream_joined_is_the_whole_answer(theirs: Theirs) -> None:
    whole = chat(theirs)
    chunks = list(chat(theirs, stream=True, stream_options={"include_usage": True}))
    assert text_of(chunks) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_several_answers_are_drawn_apart_and_streamed_with_their_numbers(theirs: Theirs) -> None:
    options: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 11, "max_tokens": 10}
    whole = [choice.message.content for choice in chat(theirs, **options).choices]
    chunks = list(chat(theirs, stream=True, **options))
    assert [text_of(chunks, index) for index in range(3)] == whole
    assert len(set(whole)) == 3
    assert sum(choice.finish_reason is not None for c in chunks for choice in c.choices) == 3


def test_a_seed_repeats_an_answer(theirs: Theirs) -> None:
    def draw(seed: int) -> str | None:
        reply = chat(theirs, temperature=1.0, seed=seed)
        return reply.choices[0].message.content  # type: ignore[no-any-return]

    assert draw(5) == draw(5)
    assert len({draw(5), draw(6), draw(7)}) == 3


def test_an_answer_stops_before_a_stop_text(theirs: Theirs) -> None:
    text = chat(theirs).choices[0].message.content
    stop = text[3:5]
    reply = chat(theirs, stop=["never found", stop])
    assert reply.choices[0].message.content == text[: text.find(stop)]
    assert reply.choices[0].finish_reason == "stop"


def test_log_probabilities_are_those_of_a_greedy_choice(theirs: Theirs) -> None:
    (choice,) = chat(theirs, logprobs=True, top_logprobs=3).choices
    content = choice.logprobs.content
    assert len(content) == 12
    for token in content:
        best = [other.logprob for other in token.top_logprobs]
        assert best == sorted(best, reverse=True)
        assert len(best) == 3
        assert token.logprob == pytest.approx(best[0], abs=1e-4)
        assert sum(math.exp(value) for value in best) <= 1.0001
    written = b"".join(bytes(token.bytes) for token in content)
    assert written.decode("utf-8", "replace") == choice.message.content


def test_streamed_log_probabilities_are_the_same(theirs: Theirs) -> None:
    whole = chat(theirs, logprobs=True).choices[0].logprobs.content
    told = [
        token
        for chunk in chat(theirs, logprobs=True, stream=True)
        for choice in chunk.choices
        for token in (choice.logprobs.content if choice.logprobs else ())
    ]
    assert [token.token for token in told] == [token.token for token in whole]
    assert [token.logprob for token in told] == pytest.approx(
        [token.logprob for token in whole], abs=1e-4
    )


def test_a_bias_forbids_and_forces(theirs: Theirs) -> None:
    (choice,) = theirs.client.completions.create(
        model=theirs.model, prompt="what is", max_tokens=4, logit_bias={"40": 100}, logprobs=0
    ).choices
    assert choice.logprobs is not None
    assert choice.logprobs.tokens is not None
    assert len(set(choice.logprobs.tokens)) == 1


def test_penalties_change_what_repeats(theirs: Theirs) -> None:
    bias: dict[str, int] = {"40": 20}
    same = chat(theirs, logit_bias=bias, max_tokens=8).choices[0].message.content
    for name in ("frequency_penalty", "presence_penalty"):
        other = chat(theirs, logit_bias={"40": 1}, max_tokens=30, **{name: 2.0})
        plain = chat(theirs, logit_bias={"40": 1}, max_tokens=30)
        assert other.choices[0].message.content != plain.choices[0].message.content
    assert len(set(same)) == 1


def test_completions_are_what_openai_publishes(theirs: Theirs) -> None:
    body = {"prompt": ["what is", "who"], "max_tokens": 4, "n": 2, "logprobs": 2, "temperature": 0}
    found = strictly(Completion, theirs.post("/completions", body))
    assert [choice.index for choice in found.choices] == [0, 1, 2, 3]
    assert found.choices[0].text == found.choices[1].text
    streamed = theirs.post("/completions", {**body, "stream": True})
    # what is published has no word for an answer that goes on, and all servers say null
    streamed = streamed.replace(b'"finish_reason":null', b'"finish_reason":"stop"')
    chunks = chunks_of(
        Completion, streamed.replace(b'"finish_reason": null', b'"finish_reason":"stop"')
    )
    for index in range(4):
        parts = [c.text for chunk in chunks for c in chunk.choices if c.index == index]
        assert "".join(parts) == found.choices[index].text


def test_a_prompt_may_be_tokens_and_be_said_again(theirs: Theirs) -> None:
    create = theirs.client.completions.create
    asked: dict[str, Any] = {"model": theirs.model, "max_tokens": 4, "temperature": 0}
    plain = create(prompt="what is it", **asked).choices[0].text
    assert create(prompt="what is it", echo=True, **asked).choices[0].text == "what is it" + plain
    one, two = create(prompt=[[5, 6, 7], [8]], **asked).choices
    assert create(prompt=[5, 6, 7], **asked).choices[0].text == one.text
    assert two.index == 1


def test_embeddings_are_of_length_one_in_both_encodings(theirs: Theirs) -> None:
    asked = {"input": ["what is it", "who are you"]}
    floats = strictly(
        CreateEmbeddingResponse, theirs.post("/embeddings", {**asked, "encoding_format": "float"})
    )
    coded = theirs.client.embeddings.create(model=theirs.model, **asked, encoding_format="base64")
    for one, other in zip(floats.data, coded.data, strict=True):
        raw = base64.b64decode(str(other.embedding))
        numbers = struct.unpack(f"<{len(raw) // 4}f", raw)
        assert numbers == pytest.approx(one.embedding, abs=1e-6)
        assert sum(value**2 for value in one.embedding) == pytest.approx(1, abs=1e-4)
    assert floats.data[0].embedding != floats.data[1].embedding


def test_a_response_is_what_openai_publishes(theirs: Theirs) -> None:
    body = {"input": "what is it?", "max_output_tokens": 5, "temperature": 0, "top_p": 1.0}
    found = strictly(Response, theirs.post("/responses", body))
    plain = chat(theirs, max_tokens=5).choices[0].message.content
    assert found.output_text == plain
    assert found.status == "incomplete"


def test_events_of_a_response_come_in_openai_s_order(theirs: Theirs) -> None:
    body = {"input": "what is it?", "max_output_tokens": 3, "stream": True}
    names = [name for name, _ in events_of(theirs.post("/responses", body))]
    deltas = [name for name in names if name == "response.output_text.delta"]
    assert names == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]


def test_models_are_listed(theirs: Theirs) -> None:
    assert theirs.model in [entry.id for entry in theirs.client.models.list()]


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({"temperature": -1}, 400),
        ({"max_tokens": "many"}, 400),
        ({"messages": "hello"}, 400),
        ({"top_logprobs": 2}, 400),
    ],
)
def test_mistakes_are_client_errors(theirs: Theirs, options: dict[str, Any], status: int) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        chat(theirs, **options)
    assert status <= caught.value.status_code < 500
    assert isinstance(caught.value.body, dict)


def test_an_unknown_model_is_not_found(theirs: Theirs) -> None:
    with pytest.raises(openai.NotFoundError):
        theirs.client.chat.completions.create(model="no-such-model", messages=MESSAGES)
