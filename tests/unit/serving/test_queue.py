"""Many answers at once, a short queue, and no work for those who have left."""

from __future__ import annotations

import asyncio
import gc
import json
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient  # noqa: TC002  fixtures are read at run time

from tests.unit.serving import inside
from tests.unit.serving.running import Client, Running, wait_for
from tunesmith.errors import RequestError
from tunesmith.inference.batching.build import build_engine
from tunesmith.serving.app import build_app
from tunesmith.serving.note import Note
from tunesmith.serving.queue import Busy
from tunesmith.serving.service import Service

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]
LONG = {"messages": MESSAGES, "max_tokens": 19_000}
SHORT = {"messages": MESSAGES, "max_tokens": 1}
ACTIVE, WAITING = 2, 3
PLACES = ACTIVE + WAITING


@pytest.fixture(scope="module")
def narrow(served_model: Path) -> Iterator[Client]:
    """A server with few places."""
    engine = build_engine(served_model, rows=ACTIVE).engine
    service = Service(engine, "tiny-chat", max_waiting=WAITING)
    with closing(service), inside.listening(service) as client:
        yield client


@pytest.fixture
def server(server: Running) -> Running:
    """The shared server, once it has seen that those of the test before have left."""
    wait_for(lambda: server.post(CHAT, SHORT).status == 200)
    return server


@contextmanager
def asking(server: Client, content: object, count: int) -> Iterator[list[socket.socket]]:
    """Send the same request over many connections at once, and hang up at the end."""
    body = json.dumps(content).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    host, port = server.host.split(":")
    with ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((host, int(port)), timeout=60))
            for _ in range(count)
        ]
        for connection in connections:
            connection.sendall(head.encode() + body)
        yield connections


def status_of(connection: socket.socket) -> int:
    received = b"".join(iter(lambda: connection.recv(65536), b""))
    return int(received.split(b" ", 2)[1])


def has_answer(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        connection.settimeout(60)


@pytest.mark.parametrize(
    ("path", "streaming"),
    [
        (CHAT, False),
        (CHAT, True),
        ("/v1/completions", True),
        ("/v1/responses", False),
        ("/v1/responses", True),
        ("/generate", False),
    ],
)
def test_hanging_up_stops_the_work_within_a_second(
    server: Running, path: str, streaming: bool
) -> None:
    asked: dict[str, Any] = {"max_tokens": 19_000, "prompt": "what is it?"}
    if path == "/v1/responses":
        asked = {"max_output_tokens": 19_000, "input": "what is it?"}
    elif path == CHAT:
        asked = LONG
    with server.writing(path, {**asked, "stream": True} if streaming else asked):
        wait_for(server.busy)
    assert server.idle_after() < 1.5


def test_closing_a_stream_of_openai_s_client_stops_the_work(
    server: Running, client: openai.OpenAI
) -> None:
    messages: Any = MESSAGES
    stream = client.chat.completions.create(
        model="tiny-chat", messages=messages, max_tokens=19_000, stream=True
    )
    next(iter(stream))
    wait_for(server.busy)
    stream.close()
    assert server.idle_after() < 1.5


def test_a_short_answer_does_not_wait_for_a_long_one(server: Running) -> None:
    with asking(server, LONG, 3) as connections:
        wait_for(server.busy)
        assert server.post(CHAT, SHORT).status == 200
        assert not any(map(has_answer, connections))


def test_a_burst_fills_the_queue_and_no_more(narrow: Client) -> None:
    with asking(narrow, LONG, PLACES + 4) as connections:
        wait_for(lambda: sum(map(has_answer, connections)) == 4)
        refused = narrow.post(CHAT, SHORT)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.error["message"] == f"{WAITING} requests wait already"
        assert refused.error["hint"] == "try again in a second"
        assert (refused.error["type"], refused.error["code"]) == (
            "rate_limit_error",
            "rate_limit_exceeded",
        )
        figures = narrow.get("/metrics").body.decode()
        assert f"tunesmith_running {ACTIVE}.0" in figures
        assert f"tunesmith_waiting {WAITING}.0" in figures
        ready = [connection for connection in connections if has_answer(connection)]
        assert [status_of(connection) for connection in ready] == [429] * 4
    wait_for(lambda: narrow.post(CHAT, SHORT).status == 200)


def test_those_who_wait_are_answered_in_the_end(narrow: Client) -> None:
    with asking(narrow, {**SHORT, "max_tokens": 50}, PLACES) as connections:
        assert [status_of(connection) for connection in connections] == [200] * PLACES


@pytest.mark.parametrize("streaming", [False, True])
def test_those_who_leave_give_up_their_place(narrow: Client, streaming: bool) -> None:
    for _ in range(3):
        with asking(narrow, {**LONG, "stream": streaming}, PLACES + 1) as connections:
            wait_for(lambda some=connections: narrow.post(CHAT, SHORT).status == 429)  # type: ignore[misc]
        wait_for(lambda: narrow.post(CHAT, SHORT).status == 200, 3)


def test_each_of_several_answers_takes_a_place(narrow: Client) -> None:
    reply = narrow.post(CHAT, {**SHORT, "n": PLACES + 1})
    assert reply.status == 400
    assert reply.error["where"] == "n"
    with asking(narrow, {**LONG, "n": PLACES}, 1):
        wait_for(lambda: narrow.post(CHAT, SHORT).status == 429)
    wait_for(lambda: narrow.post(CHAT, {**SHORT, "n": PLACES}).status == 200)


def test_openai_s_client_comes_again_when_the_queue_was_full(narrow: Client) -> None:
    messages: Any = MESSAGES
    with openai.OpenAI(base_url=f"{narrow.address}/v1", api_key="-", max_retries=0) as hasty:
        with asking(narrow, LONG, PLACES):
            wait_for(lambda: narrow.post(CHAT, SHORT).status == 429)
            with pytest.raises(openai.RateLimitError, match="requests wait already"):
                hasty.chat.completions.create(model="tiny-chat", messages=messages)
        patient = hasty.with_options(max_retries=3)
        reply = patient.chat.completions.create(model="tiny-chat", messages=messages, max_tokens=1)
        assert reply.choices


def test_health_answers_while_the_queue_is_full(narrow: Client) -> None:
    with asking(narrow, LONG, PLACES):
        wait_for(lambda: narrow.post(CHAT, SHORT).status == 429)
        start = time.monotonic()
        assert narrow.get("/health").status == 200
        assert time.monotonic() - start < 1


def test_places_are_given_back_however_a_request_ends(served_model: Path) -> None:
    with inside.service(served_model, max_waiting=0) as service:
        notes = [Note() for _ in range(service.places)]
        for note in notes:
            service.enter(note, service.name)
        with pytest.raises(Busy):
            service.enter(Note(), service.name)
        for note in notes:
            note.ends.close()
        assert service.taken == 0
        with pytest.raises(RequestError, match="more than the"):
            service.enter(Note(), service.name, service.places + 1)
        with inside.asking(service) as client:
            for body in ({}, {"messages": [{"role": "user", "content": "x " * 30_000}]}):
                assert client.post(CHAT, json=body).status_code in (400, 422)
            assert client.post(CHAT, json=SHORT).status_code == 200
        assert service.taken == 0


def test_a_client_that_reads_nothing_and_leaves_gives_up_its_place_at_once(
    served_model: Path,
) -> None:
    async def leave_unread(service: Service) -> None:
        app = build_app(service, inside.OPEN)
        stuck, asked = asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await stuck.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": json.dumps({**LONG, "stream": True}).encode()}

        async def send(message: Any) -> None:
            if message.get("body"):
                stuck.set()
                await asyncio.sleep(60)  # as a connection does whose buffers are full

        scope = {
            "type": "http",
            "method": "POST",
            "path": CHAT,
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"localhost")],
            "asgi": {"spec_version": "2.3"},
        }
        async with asyncio.timeout(20):
            await app(scope, receive, send)
        assert service.taken == 0

    gc.disable()  # a place must not depend on when garbage is collected
    try:
        with inside.service(served_model) as service:
            asyncio.run(leave_unread(service))
    finally:
        gc.enable()


@pytest.fixture
def broken(served_model: Path) -> Iterator[TestClient]:
    """An application around an engine that fails at its first token."""
    service = Service(inside.Failing(build_engine(served_model).engine), "tiny")
    with inside.asking(service) as client:
        yield client
    service.close()


def test_a_fault_of_ours_is_admitted_without_details(
    broken: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    for path, body in ((CHAT, SHORT), ("/generate", {"prompt": "hi"})):
        reply = broken.post(path, json=body)
        assert reply.status_code == 500
        assert reply.json()["error"] == {
            "message": "the server failed unexpectedly",
            "where": "",
            "hint": "look at the server's log",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    assert "Traceback" in caplog.text


@pytest.mark.parametrize(
    ("path", "body"),
    [(CHAT, SHORT), ("/v1/completions", {"prompt": "hi"}), ("/v1/responses", {"input": "hi"})],
)
def test_a_fault_in_a_stream_is_told_as_an_event_and_the_next_request_is_served(
    broken: TestClient, caplog: pytest.LogCaptureFixture, path: str, body: dict[str, Any]
) -> None:
    for _ in range(2):
        lines = broken.post(path, json={**body, "stream": True}).text.splitlines()
        told = json.loads([line for line in lines if line][-1].removeprefix("data: "))
        error = told["response"]["error"] if path == "/v1/responses" else told["error"]
        assert error["message"] == "the server failed unexpectedly"
        assert "data: [DONE]" not in lines
    assert "Traceback" in caplog.text
