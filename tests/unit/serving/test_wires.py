"""What other clients put on the wire: Spring AI over Java's HTTP client, curl with all it can."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest

from tests.unit.serving.running import Client, Reply, Running

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]
JAVA = {
    "Connection": "Upgrade, HTTP2-Settings",
    "Upgrade": "h2c",
    "HTTP2-Settings": "AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
    "User-Agent": "Java-http-client/21.0.4",
    "Authorization": "Bearer none",
    "Content-Type": "application/json",
    "Transfer-Encoding": "chunked",
}
"""What Java's client sends first to a server without TLS."""
STAINLESS = {
    "User-Agent": "OpenAI/Java 4.6.1",
    "Accept": "application/json",
    "X-Stainless-Arch": "x64",
    "X-Stainless-Lang": "java",
    "X-Stainless-OS": "Linux",
    "X-Stainless-Package-Version": "4.6.1",
    "X-Stainless-Retry-Count": "0",
    "X-Stainless-Runtime": "JRE",
    "X-Stainless-Runtime-Version": "21.0.4",
    "X-Stainless-Read-Timeout": "600",
    "X-Stainless-Timeout": "600",
    "OpenAI-Organization": "org",
    "OpenAI-Project": "proj",
}
WEATHER = {
    "type": "function",
    "function": {
        "description": "Get the weather of a place",
        "name": "currentWeather",
        "parameters": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "location": {"type": "string", "description": "a town"},
                "unit": {"type": "string", "enum": ["C", "F"]},
            },
            "required": ["location", "unit"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def send(server: Client, head: str, body: bytes = b"", *, then: bytes = b"") -> Reply:
    """Send a request letter by letter as it is written; `then` follows once 100 was said."""
    host, port = server.host.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.replace("\n", "\r\n").encode() + b"\r\n" + body)
        said = b""
        if then:
            said = connection.recv(65536)
            assert said.startswith(b"HTTP/1.1 100 ")
            connection.sendall(then)
            said = b""
        while part := connection.recv(65536):
            said += part
    top, _, content = said.partition(b"\r\n\r\n")
    first, *lines = top.decode().split("\r\n")
    headers = {name.lower(): value for name, _, value in (one.partition(": ") for one in lines)}
    return Reply(int(first.split()[1]), headers, content)


def chunked(body: bytes) -> bytes:
    half = len(body) // 2
    parts = [body[:half], body[half:]]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


def spring(server: Client, body: dict[str, Any]) -> Reply:
    """Ask as Spring AI's RestClient does, through Java's own HTTP client."""
    lines = "".join(f"{name}: {value}\n" for name, value in JAVA.items())
    lines = lines.replace("Upgrade, HTTP2-Settings", "Upgrade, HTTP2-Settings, close")
    head = f"POST {CHAT} HTTP/1.1\nHost: {server.host}\n{lines}"
    return send(server, head, chunked(json.dumps(body).encode()))


def test_java_s_client_that_offers_http_2_is_answered_over_http_1(server: Running) -> None:
    body = {
        "messages": [{"content": "what is it?", "role": "user"}],
        "model": server.model,
        "stream": False,
        "temperature": 0.7,
        "max_tokens": 3,
    }
    reply = spring(server, body)
    assert reply.status == 200, reply.body
    assert b"chat.completion" in reply.body


def test_spring_s_stream_counts_its_tokens_in_its_last_chunk(server: Running) -> None:
    body = {
        "messages": MESSAGES,
        "model": server.model,
        "max_completion_tokens": 4,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
        "stream": True,
    }
    reply = server.post(CHAT, body, **STAINLESS)
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [line[6:] for line in reply.body.decode().splitlines() if line]
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    assert [chunk["choices"] for chunk in chunks][-1] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 4
    assert all("usage" not in chunk or chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"


def test_spring_s_tools_are_held_to_their_schema_and_their_results_read(server: Running) -> None:
    asked = {"messages": MESSAGES, "model": server.model, "max_tokens": 400}
    tools = {"tools": [WEATHER], "tool_choice": "required", "parallel_tool_calls": False}
    reply = server.post(CHAT, {**asked, **tools, "temperature": 1.0, "seed": 5}, **STAINLESS)
    assert reply.status == 200, reply.body
    called = [
        {
            "content": "",
            "role": "assistant",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {
                        "name": "currentWeather",
                        "arguments": '{"location":"Bonn","unit":"C"}',
                    },
                }
            ],
        },
        {
            "content": '{"temp":30.0}',
            "role": "tool",
            "name": "currentWeather",
            "tool_call_id": "call_1",
        },
    ]
    again = {**asked, "messages": [*MESSAGES, *called], "tools": [WEATHER], "max_tokens": 3}
    reply = server.post(CHAT, again, **STAINLESS)
    assert reply.status == 200, reply.body


def test_spring_s_embeddings_and_structured_answers(server: Running) -> None:
    body = {"input": ["one", "two"], "model": server.model, "encoding_format": "base64"}
    found = server.post("/v1/embeddings", body, **STAINLESS).json
    assert [entry["index"] for entry in found["data"]] == [0, 1]
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    kind = {"name": "custom_schema", "strict": True, "schema": schema}
    asked = {"messages": MESSAGES, "model": server.model, "max_tokens": 60}
    form = {"type": "json_schema", "json_schema": kind}
    reply = server.post(CHAT, {**asked, "response_format": form}, **STAINLESS)
    assert reply.status == 200, reply.body


HEAD = "Host: localhost\nConnection: close\nContent-Length: {length}\n"
BODY = json.dumps({"messages": MESSAGES, "max_tokens": 2}).encode()


@pytest.mark.parametrize(
    ("method", "lines", "status"),
    [
        ("POST", "Content-Type: application/json; charset=utf-8\n", 200),
        ("POST", "content-type:APPLICATION/JSON\n", 200),
        ("POST", "Content-Type: application/json\nAccept: text/html\nAccept-Encoding: br\n", 200),
        ("POST", "Content-Type: application/json\nContent-Encoding: gzip\n", 415),
        ("POST", "Content-Type: application/json\nX-Ünsinn: ä\n", 400),
        ("POST", "Content-Type: application/json\nX-Empty:\nX-Empty: \n", 200),
        ("POST", "Content-Type: application/json\nContent-Length: 3\n", 400),
        ("POST", "Content-Type: application/json\nTransfer-Encoding: gzip\n", 501),
        ("POST", "Content-Type: application/json\nHost: evil.example\n", 400),
        ("POST", "Content-Type: application/json\nX: a\n b: c\n", 200),
        ("POST", "Content-Type : application/json\n", 400),
        ("POST", "Content-Type: application/json\nX-HTTP-Method-Override: DELETE\n", 200),
        ("POST", "Content-Type: application/json\nTrailer: x\nTE: trailers\n", 200),
        ("PUT", "Content-Type: application/json\n", 405),
        ("BREW", "Content-Type: application/json\n", 405),
        ("post", "Content-Type: application/json\n", 405),
    ],
)
def test_odd_headers_are_read_or_refused_by_name(
    server: Running, method: str, lines: str, status: int
) -> None:
    head = f"{method} {CHAT} HTTP/1.1\n{HEAD.format(length=len(BODY))}{lines}"
    reply = send(server, head, BODY)
    assert reply.status == status, reply.body
    if status != 200:
        assert reply.error["message"]
        assert reply.error["hint"]


def test_curl_that_waits_to_be_told_to_go_on_is_told(server: Running) -> None:
    head = HEAD.format(length=len(BODY)) + "Content-Type: application/json\nExpect: 100-continue\n"
    assert send(server, f"POST {CHAT} HTTP/1.1\n{head}", then=BODY).status == 200


def test_a_mark_of_the_byte_order_before_json_is_no_mistake(server: Running) -> None:
    head = HEAD.format(length=len(BODY) + 3) + "Content-Type: application/json\n"
    assert send(server, f"POST {CHAT} HTTP/1.1\n{head}", b"\xef\xbb\xbf" + BODY).status == 200


def test_a_length_beside_chunks_smuggles_nothing(server: Running) -> None:
    inner = f"GET /v1/models HTTP/1.1\r\nHost: {server.host}\r\n\r\n".encode()
    head = "Host: localhost\nContent-Type: application/json\nContent-Length: 4\n"
    body = chunked(BODY) + inner
    reply = send(
        server,
        f"POST {CHAT} HTTP/1.1\n{head}Transfer-Encoding: chunked\nConnection: close\n",
        body,
    )
    assert reply.status in (200, 400)
    assert b'"object":"list"' not in reply.body


def test_health_is_told_to_whoever_asks_for_its_head_only(server: Running) -> None:
    for path in ("/health", "/ready"):
        reply = server.ask("HEAD", path)
        assert (reply.status, reply.body) == (200, b"")


def test_an_old_client_is_answered(server: Running) -> None:
    reply = send(server, "GET /health HTTP/1.0\nHost: localhost\n")
    assert (reply.status, reply.json) == (200, {"status": "ok"})
