"""Slow clients are let go, and nobody else waits for them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving import inside
from tests.unit.serving.running import Client, wait_for
from tunesmith.serving import connections
from tunesmith.serving.service import Service

SECONDS = 0.4
HEAD = b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = b'{"prompt": "hi", "max_tokens": 1}'


@pytest.fixture(scope="module")
def service(served_model: Path) -> Iterator[Service]:
    with inside.service(served_model) as found:
        yield found


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SECONDS_FOR_HEAD", "SECONDS_FOR_BODY", "SECONDS_TO_READ"):
        monkeypatch.setattr(connections, name, SECONDS)


@pytest.fixture
def hasty(service: Service, brief: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    """A server with little patience."""
    monkeypatch.setattr(connections, "BODY_BYTES_PER_SECOND", 100)
    with inside.listening(service) as client:
        yield client


def connect(client: Client) -> socket.socket:
    host, port = client.host.split(":")
    return socket.create_connection((host, int(port)), timeout=20)


def seconds_until_closed(connection: socket.socket, dribble: bytes = b"") -> tuple[float, bytes]:
    """Send a byte now and then until the other side closes; return when, and what it said."""
    start, said = time.monotonic(), b""
    connection.settimeout(0.05)
    while time.monotonic() < start + 15:
        try:
            if dribble:
                connection.sendall(dribble)
            got = connection.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            got = b""
        said += got
        if not got:
            return time.monotonic() - start, said
    raise AssertionError("it is still open")


@pytest.mark.parametrize("begun", [b"", b"G", b"GET /health HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_end_is_cut_off_in_time(hasty: Client, begun: bytes) -> None:
    with connect(hasty) as connection:
        connection.sendall(begun)
        seconds, said = seconds_until_closed(connection, b"x" if begun else b"")
    assert seconds + 0.1 >= SECONDS
    assert seconds < SECONDS + 2
    assert said.startswith(b"HTTP/1.1 408") or not said
    if said:
        error = json.loads(said.partition(b"\r\n\r\n")[2])["error"]
        assert error["message"] == "the request did not come in time"


def test_a_body_that_only_dribbles_is_cut_off_in_time(hasty: Client) -> None:
    with connect(hasty) as connection:
        connection.sendall(HEAD + b"Content-Length: 1000000\r\n\r\n{")
        seconds, _ = seconds_until_closed(connection, b" ")
    assert SECONDS <= seconds < SECONDS + 2


def test_a_long_body_may_take_longer_as_long_as_it_comes(hasty: Client) -> None:
    with connect(hasty) as connection:
        connection.sendall(HEAD + b"Connection: close\r\nContent-Length: 533\r\n\r\n" + BODY)
        for _ in range(10):
            time.sleep(SECONDS / 5)
            connection.sendall(b" " * 50)
        said = connection.recv(65536)
    assert said.startswith(b"HTTP/1.1 200")


def test_the_second_head_of_a_connection_is_timed_too(hasty: Client) -> None:
    with connect(hasty) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
        connection.sendall(b"GET /hea")
        seconds, _ = seconds_until_closed(connection, b"l")
    assert seconds < SECONDS + 2


@pytest.mark.usefixtures("brief")
def test_a_slow_answer_is_not_cut_off(service: Service) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3 * SECONDS)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with inside.hosting(app, service) as client:
        assert client.get("/").status == 204


@pytest.mark.usefixtures("brief")
def test_a_client_that_does_not_read_is_let_go(service: Service) -> None:
    over = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(64):  # more than all buffers on the way hold
            await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": True})
        over.set()

    with inside.hosting(app, service) as client, connect(client) as connection:
        start = time.monotonic()
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert over.wait(10)
        assert time.monotonic() - start >= SECONDS


def test_connections_beyond_the_limit_are_closed_and_others_served(
    hasty: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 3)
    held = [connect(hasty) for _ in range(3)]
    with connect(hasty) as fourth:
        assert seconds_until_closed(fourth)[0] < 2
    for connection in held:
        connection.close()
    wait_for(lambda: _is_served(hasty), 5)


def _is_served(client: Client) -> bool:
    try:
        return client.get("/health").status == 200
    except OSError:
        return False


def test_two_requests_at_once_on_one_connection_are_both_answered(hasty: Client) -> None:
    request: Any = HEAD + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    with connect(hasty) as connection:
        connection.sendall(request + request)
        said = b""
        while said.count(b"HTTP/1.1 200") < 2:
            said += connection.recv(65536)
