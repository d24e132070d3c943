"""One answer at a time, a short queue, and no work for those who have left."""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import openai
import pytest
from fastapi.testclient import TestClient

from tests.unit.serving.running import Running, serving, wait_for
from tunesmith.errors import RequestError
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.serving.app import build_app
from tunesmith.serving.guard import Guard
from tunesmith.serving.service import MAX_WAITING, Busy, Service

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]
LONG = {"messages": MESSAGES, "max_tokens": 15_000}
SHORT = {"messages": MESSAGES, "max_tokens": 1}


@pytest.fixture(scope="module")
def model(served_model: Path) -> ChatModel:
    return load_chat_model(served_model, precision="fp32", device="cpu")


@pytest.fixture
def server(server: Running) -> Running:
    """The shared server, once it has seen that those of the test before have left."""
    wait_for(lambda: server.post(CHAT, SHORT).status == 200)
    return server


@contextmanager
def asking(server: Running, content: object, count: int) -> Iterator[list[socket.socket]]:
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


@pytest.mark.parametrize("streaming", [False, True])
def test_hanging_up_stops_the_work_within_a_second(server: Running, streaming: bool) -> None:
    with server.writing(CHAT, {**LONG, "stream": streaming}):
        time.sleep(0.3)
        wait_for(server.busy)
    assert server.idle_after() < 1.5


def test_hanging_up_on_plain_text_stops_the_work_too(server: Running) -> None:
    with server.writing("/generate", LONG):
        wait_for(server.busy)
    assert server.idle_after() < 1.5


def test_closing_a_stream_of_openai_s_client_stops_the_work(
    server: Running, client: openai.OpenAI
) -> None:
    messages: Any = MESSAGES
    stream = client.chat.completions.create(
        model="tiny-chat", messages=messages, max_tokens=15_000, stream=True
    )
    next(iter(stream))
    wait_for(server.busy)
    stream.close()
    assert server.idle_after() < 1.5


def test_a_burst_fills_the_queue_and_no_more(server: Running) -> None:
    with server.writing(CHAT, LONG), asking(server, SHORT, MAX_WAITING + 20) as connections:
        refused = server.post(CHAT, SHORT)
        assert refused.status == 429
        assert refused.headers["retry-after"] == "1"
        assert refused.error["message"] == f"{MAX_WAITING} requests wait already"
        assert refused.error["hint"] == "try again in a second"
        assert refused.error["code"] == "rate_limit_exceeded"
        start = time.monotonic()
        assert server.get("/health").status == 200
        assert time.monotonic() - start < 1
        wait_for(lambda: sum(map(has_answer, connections)) == 20)
        time.sleep(0.5)
        ready = [connection for connection in connections if has_answer(connection)]
        assert [status_of(connection) for connection in ready] == [429] * 20
        wait_for(server.busy)


def has_answer(connection: socket.socket) -> bool:
    connection.settimeout(0.01)
    try:
        return bool(connection.recv(1, socket.MSG_PEEK))
    except TimeoutError:
        return False
    finally:
        connection.settimeout(60)


def test_those_who_wait_are_answered_in_the_end(server: Running) -> None:
    with asking(server, SHORT, 12) as connections:
        assert [status_of(connection) for connection in connections] == [200] * 12


def lets_in_another(server: Running) -> bool:
    with asking(server, SHORT, 1) as (connection,):
        time.sleep(0.1)
        return not has_answer(connection)


@pytest.mark.parametrize("streaming", [False, True])
def test_those_who_leave_give_up_their_place(server: Running, streaming: bool) -> None:
    with server.writing(CHAT, LONG):
        for _ in range(3):
            with asking(server, {**SHORT, "stream": streaming}, MAX_WAITING + 1) as connections:
                wait_for(lambda some=connections: any(map(has_answer, some)))  # type: ignore[misc]
            wait_for(lambda: lets_in_another(server))
        wait_for(server.busy)
    assert server.post(CHAT, SHORT).status == 200


def test_openai_s_client_comes_again_when_the_queue_was_full(server: Running) -> None:
    messages: Any = MESSAGES
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="-", max_retries=0) as hasty:
        with server.writing(CHAT, LONG), asking(server, SHORT, MAX_WAITING + 1) as connections:
            wait_for(lambda: any(map(has_answer, connections)))
            with pytest.raises(openai.RateLimitError, match="requests wait already"):
                hasty.chat.completions.create(model="tiny-chat", messages=messages)
        patient = hasty.with_options(max_retries=3)
        reply = patient.chat.completions.create(model="tiny-chat", messages=messages, max_tokens=1)
        assert reply.choices


def test_an_answer_that_was_left_does_not_disturb_the_next_one(model: ChatModel) -> None:
    options: dict[str, Any] = {"max_tokens": 24, "temperature": 1.0, "seed": 5}
    (expected,) = answer(model, [encode_prompt(model, MESSAGES)], Sampling(**options))

    async def interrupt_and_ask() -> list[str]:
        service, said = Service(model, "tiny"), []
        for seed in range(5):
            left = await service.prepare(MESSAGES, {"temperature": 1.0, "seed": seed})
            async with service.answering(left) as answering:
                async for _ in answering:
                    break
            asked = await service.prepare(
                MESSAGES, {"max_tokens": 24, "temperature": 1.0, "seed": 5}
            )
            async with service.answering(asked) as answering:
                said.append("".join([piece async for piece in answering]))
        return said

    assert asyncio.run(interrupt_and_ask()) == [expected.text] * 5


def test_the_queue_counts_requests_from_the_moment_they_come(model: ChatModel) -> None:
    async def ask_at_once() -> list[Any]:
        service = Service(model, "tiny")
        asked = (service.prepare(MESSAGES, {}) for _ in range(MAX_WAITING + 5))
        return await asyncio.gather(*asked, return_exceptions=True)

    outcomes = asyncio.run(ask_at_once())
    assert sum(isinstance(outcome, Busy) for outcome in outcomes) == 5


def test_a_request_that_is_refused_or_forgotten_takes_no_place(model: ChatModel) -> None:
    async def ask_badly() -> None:
        service = Service(model, "tiny")
        for _ in range(MAX_WAITING + 1):
            with pytest.raises(RequestError, match="the model takes"):
                await service.prepare("word " * 6_000, {})
            await service.prepare(MESSAGES, {})  # and nobody waits for the answer

    asyncio.run(ask_badly())


def test_a_client_that_reads_nothing_and_leaves_gives_up_its_turn_at_once(
    model: ChatModel,
) -> None:
    async def leave_unread() -> bool:
        service = Service(model, "tiny")
        app = build_app(service, Guard(None, loopback=False))
        stuck, asked = asyncio.Event(), False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await stuck.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": json.dumps({**LONG, "stream": True}).encode()}

        async def send(message: dict[str, Any]) -> None:
            if message.get("body"):
                stuck.set()
                await asyncio.sleep(60)  # as a connection does whose buffers are full

        await app(
            {
                "type": "http",
                "method": "POST",
                "path": CHAT,
                "query_string": b"",
                "headers": [(b"content-type", b"application/json")],
                "asgi": {"spec_version": "2.3"},
            },
            receive,
            send,
        )
        next_one = await service.prepare(MESSAGES, {"max_tokens": 1})
        async with asyncio.timeout(20), service.answering(next_one) as answering:
            return bool([piece async for piece in answering]) or True

    gc.disable()  # a turn must not depend on when garbage is collected
    try:
        assert asyncio.run(leave_unread())
    finally:
        gc.enable()


@pytest.fixture
def broken(served_model: Path) -> Iterator[TestClient]:
    """An application around a model that fails at its first token."""
    model = load_chat_model(served_model, precision="fp32", device="cpu")
    model.model.lm_head = None
    app = build_app(Service(model, "tiny"), Guard(None, loopback=True))
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def test_a_fault_of_ours_is_admitted_without_details(
    broken: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    reply = broken.post(CHAT, json=SHORT)
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


def test_a_fault_in_a_stream_is_told_as_an_event_and_the_next_request_is_served(
    broken: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        lines = [
            line for line in broken.post(CHAT, json={**SHORT, "stream": True}).iter_lines() if line
        ]
        assert json.loads(lines[-1].removeprefix("data: "))["error"]["type"] == "server_error"
        assert "data: [DONE]" not in lines
    assert "Traceback" in caplog.text


def test_sigterm_lets_an_answer_end_takes_no_other_and_ends_with_code_0(
    served_model: Path, tmp_path: Path
) -> None:
    with serving(served_model, tmp_path / "log.txt") as own:
        asked = {"messages": MESSAGES, "max_tokens": 300, "stream": True}
        with own.writing(CHAT, asked) as connection:
            answer = connection.getresponse()
            own.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            with pytest.raises(OSError, match="refused"):
                own.get("/health")
            rest = answer.read()
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"length"' in rest
        assert own.process.wait(60) == 0
    assert (tmp_path / "log.txt").read_text("utf-8") == ""


@pytest.mark.proof
@pytest.mark.parametrize("streaming", [False, True])
def test_sigterm_waits_ten_seconds_for_an_answer_and_no_longer(
    served_model: Path, tmp_path: Path, streaming: bool
) -> None:
    with serving(served_model, tmp_path / "log.txt") as own:
        with own.writing(CHAT, {**LONG, "stream": streaming}):
            own.process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            assert own.process.wait(30) == 0
        assert 8 < time.monotonic() - start < 15
