"""How much one request may be, and that nothing of it is dropped in silence."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import psutil
import pytest

from tests.unit.serving.running import Running, raw
from tunesmith.serving.guard import refuse_depth
from tunesmith.serving.limits import MAX_BODY_BYTES, MAX_CHOICES, MAX_DEPTH, MAX_HEADERS

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "hi"}]


def test_a_body_that_says_it_is_too_large_is_refused_unread(server: Running) -> None:
    connection = server.connect()
    connection.putrequest("POST", "/generate")
    connection.putheader("Content-Length", str(MAX_BODY_BYTES + 1))
    connection.endheaders()
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["message"] == "the body is too large"
    connection.close()


def test_a_body_that_is_too_large_is_refused_with_its_limit(server: Running) -> None:
    body = json.dumps({"prompt": "x" * MAX_BODY_BYTES}).encode()
    reply = server.ask("POST", "/generate", body, {"Content-Type": "application/json"})
    assert reply.status == 413
    assert reply.error["where"] == "body"
    assert reply.error["hint"] == "send at most 8,388,608 bytes"


def test_a_body_in_chunks_is_counted_while_it_comes(server: Running) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(10):
            yield b" " * (1 << 20)

    connection = server.connect()
    headers = {"Content-Type": "application/json", "Transfer-Encoding": "chunked"}
    with suppress(BrokenPipeError, ConnectionResetError):  # refused before all of it was sent
        connection.request("POST", "/generate", chunks(), headers, encode_chunked=True)
    answer = connection.getresponse()
    assert answer.status == 413
    assert json.loads(answer.read())["error"]["hint"] == "send at most 8,388,608 bytes"
    connection.close()


def test_a_body_at_the_limit_is_read(server: Running) -> None:
    body = b'{"prompt": "hi", "max_tokens": 1}'
    body = body + b" " * (MAX_BODY_BYTES - len(body))
    reply = server.ask("POST", "/generate", body, {"Content-Type": "application/json"})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({f"X-{n}": "y" for n in range(MAX_HEADERS)}, "headers"),
        ({"X": "x" * 40_000}, "headers"),
    ],
)
def test_too_many_or_too_large_headers_are_refused(
    server: Running, headers: dict[str, str], message: str
) -> None:
    reply = server.ask("GET", "/health", headers=headers)
    assert reply.status == 431
    assert message in reply.error["message"]
    assert reply.error["hint"]


def test_what_is_no_http_is_refused_in_the_form_of_all_errors(server: Running) -> None:
    for request in (b"GARBAGE\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"):
        head, _, body = raw(server, request).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400")
        assert json.loads(body)["error"]["message"] == "this is no HTTP request"


@pytest.mark.parametrize(
    ("body", "fine"),
    [
        (b"[" * MAX_DEPTH + b"]" * MAX_DEPTH, True),
        (b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), False),
        (b'{"a":' * (MAX_DEPTH + 1), False),
        (b'["' + b"[{" * 500 + b'\\"]"]', True),
        (b"[[]" * 40 + b",[]" * 300 + b"]" * 40, True),
    ],
)
def test_depth_is_counted_outside_of_texts(body: bytes, fine: bool) -> None:
    assert (refuse_depth(body) is None) == fine


def test_a_body_that_is_nested_too_deep_is_refused_by_its_limit(server: Running) -> None:
    deep: Any = []
    for _ in range(MAX_DEPTH):
        deep = [deep]
    reply = server.post("/v1/chat/completions", {"messages": [], "metadata": deep})
    assert (reply.status, reply.error["hint"]) == (422, "nest at most 64 objects and lists")


def test_a_huge_length_ends_where_the_model_is_full(server: Running) -> None:
    body = {"model": "tiny-chat", "prompt": [5] * 19_990, "max_tokens": 10**12}
    reply = server.post("/v1/completions", body)
    assert reply.json["usage"]["completion_tokens"] == 10
    assert reply.json["choices"][0]["finish_reason"] == "length"


@pytest.mark.parametrize("n", [0, -1, MAX_CHOICES + 1, 10**9, 1.5, True])
def test_answers_beyond_the_limit_are_refused(server: Running, n: Any) -> None:
    reply = server.post(CHAT, {"messages": MESSAGES, "n": n})
    assert (reply.status, reply.error["where"]) == (422, "n")


@pytest.mark.parametrize("stop", ["(a+)+$", "x" * 100_000, ["a", "b"] * 8])
def test_a_stop_text_is_no_pattern_and_may_be_long(server: Running, stop: Any) -> None:
    reply = server.post(CHAT, {"messages": MESSAGES, "max_tokens": 20, "stop": stop})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"messages": MESSAGES * 2049}, "messages"),
        ({"stop": ["x"] * 17}, "stop"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, "logit_bias"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
    ],
)
def test_lists_beyond_their_limits_are_refused(
    server: Running, change: dict[str, Any], where: str
) -> None:
    reply = server.post(CHAT, {"messages": MESSAGES, "max_tokens": 1, **change})
    assert reply.status in (400, 422)
    assert reply.error["where"] == where


@pytest.mark.parametrize("odd", [10**30, 2**64, -(2**63) - 1, "\ud800", {"\udfff": 1}])
def test_what_cannot_be_spelled_again_is_refused_by_its_field(server: Running, odd: Any) -> None:
    function = {"name": "f", "parameters": {"const": odd}}
    form = {"type": "json_schema", "name": "x", "schema": {"const": odd}}
    chosen = {"type": "function", "name": "f", "more": odd}
    bodies: list[tuple[str, dict[str, Any], str]] = [
        (CHAT, {"tools": [{"type": "function", "function": function}]}, "tools.0"),
        (CHAT, {"guided_json": {"const": odd}}, "guided_json"),
        (CHAT, {"chat_template_kwargs": {"enable_thinking": odd}}, "chat_template_kwargs"),
        (CHAT, {"user": odd}, "user"),
        ("/v1/responses", {"tools": [{"type": "function", **function}]}, "tools.0"),
        ("/v1/responses", {"tool_choice": chosen}, "tool_choice"),
        ("/v1/responses", {"text": {"format": form}}, "text.format"),
        ("/v1/responses", {"metadata": {"a": odd}}, "metadata"),
        ("/v1/responses", {"max_output_tokens": odd}, "max_output_tokens"),
    ]
    for path, change, where in bodies:
        asked = {"messages": MESSAGES} if path == CHAT else {"input": "hi"}
        reply = server.post(path, {**asked, **change})
        if change.get("max_output_tokens") == -(2**63) - 1:
            assert reply.status == 400
            continue
        assert reply.status == 422, (path, change, reply.body)
        assert reply.error["where"].startswith(where)


HOSTILE: list[dict[str, Any]] = [
    {"guided_regex": "(a+)+b"},
    {"guided_regex": "(x{1,1000}){1,1000}"},
    {"guided_regex": "((x{1,100}){1,100}){1,100}"},
    {"guided_regex": "|".join(f".*{number}.*" for number in range(500))},
    {"guided_regex": "(a|b)" * 200_000},
    {"guided_json": {"type": "string", "pattern": "^(a+)+$", "maxLength": 100_000}},
    {"guided_json": {"$defs": {"a": {"anyOf": [{"$ref": "#/$defs/a"}]}}, "$ref": "#/$defs/a"}},
    {"guided_json": {"type": "array", "minItems": 100_000, "items": {"type": "integer"}}},
    {"guided_grammar": 'start: a\na: a a | "x" | a'},
    {"guided_grammar": "start: /(a+)+b/"},
    {"guided_choice": [f"{number:05d}" * 20 for number in range(4096)]},
    {"stop": ["(a+)+$", "x" * 100_000]},
    {"n": MAX_CHOICES + 1},
    {"max_tokens": -(10**12)},
]


def test_hostile_requests_are_over_soon_while_others_are_answered(server: Running) -> None:
    """Each has two seconds of a machine of its own; the other answer goes on meanwhile."""
    long = {"messages": MESSAGES, "max_tokens": 19_000, "stream": True}
    with server.writing(CHAT, long) as connection:
        other = connection.getresponse()
        for asked in HOSTILE:
            start, before = time.monotonic(), cpu_seconds(server)
            reply = server.post(CHAT, {"messages": MESSAGES, "max_tokens": 4, **asked})
            assert reply.status < 500, (asked, reply.body)
            assert min(time.monotonic() - start, cpu_seconds(server) - before) < 2, asked
            assert other.read(100), "the other answer goes on"


def cpu_seconds(server: Running) -> float:
    return sum(psutil.Process(server.process.pid).cpu_times()[:2])
