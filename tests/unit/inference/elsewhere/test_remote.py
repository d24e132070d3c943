"""A server elsewhere: what it is asked, what of it is told on, and what it cannot make us do."""

from __future__ import annotations

import json
import queue
from typing import Any

import pytest

from tests.unit.inference.elsewhere.standing_in import StandIn, standing_in
from tests.unit.inference.hearing import hear
from tests.unit.serving.running import wait_for
from tunesmith.errors import EngineError, RequestError
from tunesmith.inference.engine import Piece, Request
from tunesmith.inference.remote import Remote, RemoteOptions, read_url
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.tool_calls import read_calls

USAGE = {"choices": [], "usage": {"prompt_tokens": 11, "completion_tokens": 3, "total_tokens": 14}}
TALK = [{"role": "user", "content": "你好 <|im_end|>"}]


def chunk(finish: str | None = None, **delta: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


def ask(engine: Remote, sampling: Sampling | None = None, **of: Any) -> Request:
    speech = engine.models()["far"]
    prompt = speech.render(of.get("messages", TALK), of.get("tools", ()), of.get("options", {}))
    return Request(prompt, sampling or Sampling())


def test_messages_are_passed_on_as_they_came() -> None:
    with standing_in(StandIn([chunk("stop", content="hi"), USAGE, b"[DONE]"])) as server:
        engine = Remote(RemoteOptions(server.url, "secret"))
        said = hear(engine, ask(engine, Sampling(max_tokens=5, seed=3, stop=("x",))))
    path, headers, body = server.asked[-1]
    assert (path, headers["Authorization"]) == ("/v1/chat/completions", "Bearer secret")
    assert body["messages"] == TALK
    asked = {name: body[name] for name in ("model", "max_tokens", "seed", "stop", "temperature")}
    assert asked == {"model": "far", "max_tokens": 5, "seed": 3, "stop": ["x"], "temperature": 0}
    assert (said.text, said.finish, said.pieces[-1].counted) == ("hi", "stop", (11, 3))


def test_a_text_is_continued_as_it_came() -> None:
    events = [{"choices": [{"index": 0, "text": " 世界", "finish_reason": "length"}]}, b"[DONE]"]
    with standing_in(StandIn(events)) as server:
        engine = Remote(RemoteOptions(server.url))
        prompt = engine.models()["far"].encode("你好 <|im_end|>")
        said = hear(engine, Request(prompt, Sampling()))
    path, headers, body = server.asked[-1]
    assert (path, body["prompt"]) == ("/v1/completions", "你好 <|im_end|>")
    assert "Authorization" not in headers
    assert (said.text, said.finish) == (" 世界", "length")


def test_thoughts_and_calls_come_through() -> None:
    call = {"index": 0, "id": "a", "function": {"name": "look", "arguments": '{"at": '}}
    rest = {"index": 0, "function": {"arguments": '"海"}'}}
    other = {"index": 1, "id": "b", "function": {"name": "wait", "arguments": ""}}
    events = [
        chunk(reasoning_content="let me "),
        chunk(reasoning_content="see"),
        chunk(content="Well."),
        chunk(tool_calls=[call]),
        chunk(tool_calls=[rest, other]),
        chunk("tool_calls"),
        b"[DONE]",
    ]
    with standing_in(StandIn(events)) as server:
        engine = Remote(RemoteOptions(server.url))
        tool = {"type": "function", "function": {"name": "look", "parameters": {}}}
        said = hear(engine, ask(engine, tools=[tool], options={"enable_thinking": True}))
        manner = engine.models()["far"].manner
    body = server.asked[-1][2]
    assert body["tools"] == [tool]
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    thought, _, spoken = said.text.partition("</think>")
    assert thought == "<think>let me see"
    assert manner.tools is not None
    read = read_calls(manner.tools, spoken)
    assert read.text.strip() == "Well."
    assert [(each.name, json.loads(each.arguments)) for each in read.calls] == [
        ("look", {"at": "海"}),
        ("wait", {}),
    ]


def test_arguments_of_calls_are_sent_as_text() -> None:
    called = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"x": 1}}}
    messages = [*TALK, {"role": "assistant", "content": "", "tool_calls": [called]}]
    with standing_in(StandIn([chunk("stop", content="x"), b"[DONE]"])) as server:
        engine = Remote(RemoteOptions(server.url))
        hear(engine, ask(engine, messages=messages))
    sent = server.asked[-1][2]["messages"][1]["tool_calls"][0]["function"]["arguments"]
    assert sent == '{"x": 1}'


@pytest.mark.parametrize(
    "option",
    [
        {"top_k": 3},
        {"min_p": 0.1},
        {"repetition_penalty": 1.1},
        {"logit_bias": {3: 1.0}},
        {"logprobs": 0},
    ],
)
def test_what_not_every_server_takes_is_refused_by_name(option: dict[str, Any]) -> None:
    with standing_in(StandIn()) as server:
        engine = Remote(RemoteOptions(server.url))
        with pytest.raises(RequestError) as refused:
            engine.start(ask(engine, Sampling(**option)), lambda _: None)
    assert refused.value.where in option


def test_no_redirect_is_followed() -> None:
    with standing_in(StandIn()) as other:
        moved = StandIn(status=307, headers={"Location": f"{other.url}/models"})
        with standing_in(moved), pytest.raises(EngineError, match="307"):
            Remote(RemoteOptions(moved.url, "secret"))
    assert other.asked == []


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/v1",
        "127.0.0.1:8000/v1",
        "http:///v1",
        "http://user:word@127.0.0.1/v1",
        "http://127.0.0.1/v1?x=1",
        "http://127.0.0.1/v1#x",
        "http://127.0.0.1:99999/v1",
        "http://[::1/v1",
    ],
)
def test_odd_addresses_are_refused(url: str) -> None:
    with pytest.raises(RequestError):
        read_url(url, "")


def test_a_key_is_never_sent_in_the_clear() -> None:
    with pytest.raises(RequestError, match="clear"):
        read_url("http://example.com/v1", "secret")
    address = read_url("https://example.com/v1/", "secret")
    assert (address.host, address.port, address.path, address.secure) == (
        "example.com",
        443,
        "/v1",
        True,
    )
    assert "secret" not in str(address)
    assert read_url("http://[::1]:8000", "secret").host == "::1"


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    with standing_in(StandIn([chunk(content="half")])) as server:
        engine = Remote(RemoteOptions(server.url))
        with pytest.raises(EngineError, match="breaks off"):
            hear(engine, ask(engine))


@pytest.mark.parametrize(
    "event",
    [
        b"{",
        {"error": {"message": "out of memory"}},
        b"[" * 100_000,
        b"7",
        {"choices": [{"delta": 1}]},
    ],
)
def test_what_is_no_answer_ends_in_an_error(event: Any) -> None:
    with standing_in(StandIn([event, b"[DONE]"])) as server:
        engine = Remote(RemoteOptions(server.url))
        with pytest.raises(EngineError):
            hear(engine, ask(engine))


@pytest.mark.parametrize(("status", "kind"), [(400, RequestError), (500, EngineError)])
def test_refusals_are_told_from_failures(status: int, kind: type[Exception]) -> None:
    with standing_in(StandIn()) as server:
        engine = Remote(RemoteOptions(server.url, model="far"))
        server.status, server.body = status, b'{"error": {"message": "too hot"}}'
        with pytest.raises(kind, match="too hot"):
            hear(engine, ask(engine))


def test_who_leaves_hangs_up() -> None:
    events = [
        chunk(content="a"),
        *[part for _ in range(100) for part in (0.05, chunk(content="b"))],
    ]
    heard: queue.Queue[Piece | Exception] = queue.Queue()
    with standing_in(StandIn(events)) as server:
        engine = Remote(RemoteOptions(server.url))
        work = engine.start(ask(engine), heard.put)
        assert isinstance(heard.get(timeout=10), Piece)
        work.cancel()
        assert server.gone.wait(10)
        while not heard.empty():
            assert not isinstance(heard.get(), Exception)
        wait_for(lambda: engine.load().running == 0)


def test_several_prompts_are_answered_in_their_order() -> None:
    with standing_in(StandIn([chunk("stop", content="x"), USAGE, b"[DONE]"])) as server:
        engine = Remote(RemoteOptions(server.url))
        speech = engine.models()["far"]
        prompts = [speech.encode("one"), speech.encode("two")]
        answers = engine.write(prompts, Sampling(temperature=1.0, seed=5))
    assert [answer.num_prompt_tokens for answer in answers] == [11, 11]
    asked = sorted((body["prompt"], body["seed"]) for _, _, body in server.asked[1:])
    assert asked == [("one", 5), ("two", 6)]
