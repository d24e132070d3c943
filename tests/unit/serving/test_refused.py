"""A request that finds no room is refused without waiting for whoever computes."""

from __future__ import annotations

import asyncio
import io
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.unit.serving import inside
from tunesmith.serving.app import build_app
from tunesmith.serving.connections import PatientProtocol
from tunesmith.serving.limits import READ_AT_ONCE, REFUSED_AT_ONCE
from tunesmith.serving.loading import Loading
from tunesmith.serving.queue import Queue
from tunesmith.serving.request_log import RequestLog
from tunesmith.serving.server import build_server
from tunesmith.serving.service import Service

CHAT = "/v1/chat/completions"
BODY = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
ASKED = (
    f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    f"Content-Length: {len(BODY)}\r\n\r\n"
).encode() + BODY
CROWD = 320


@pytest.fixture(scope="module")
def full(served_model: Path) -> Iterator[Service]:
    """A service whose places are all taken."""
    with inside.service(served_model) as found:
        found.taken = found.places
        yield found


class Wire(asyncio.Transport):
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        super().__init__({"sockname": ("127.0.0.1", 1), "peername": ("127.0.0.1", 2)})
        self.sent = b""

    def write(self, data: Any) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        """Nothing is open."""

    def pause_reading(self) -> None:
        """Nothing more comes."""

    def resume_reading(self) -> None:
        """Nothing more comes."""


class Counted(io.StringIO):
    """A log that counts how often it is written to."""

    times = 0

    def write(self, text: str) -> int:
        self.times += 1
        return super().write(text)


async def ask(service: Service, log: RequestLog, crowd: int) -> tuple[list[bytes], int]:
    """Let a crowd ask at the same moment; return the answers, and how often the loop went round."""
    server = build_server(build_app(service, inside.OPEN, log), service)
    server.config.load()
    loop, wires, rounds = asyncio.get_running_loop(), [], 0
    protocols = []
    for _ in range(crowd):
        wire = Wire()
        protocol = PatientProtocol(server.config, server.server_state, {}, loop)
        protocol.connection_made(wire)
        wires.append(wire)
        protocols.append(protocol)
    for protocol in protocols:
        protocol.data_received(ASKED)
    while not all(wire.sent.endswith(b"}") for wire in wires):
        await asyncio.sleep(0)
        rounds += 1
        assert rounds < 10 * crowd
    await asyncio.sleep(0)
    for protocol in protocols:
        protocol.connection_lost(None)
    return [wire.sent for wire in wires], rounds


@contextmanager
def all_at_work(service: Service) -> Iterator[None]:
    """Keep the engine in a step and every thread beside the event loop at work, without an end."""
    over, held = threading.Event(), threading.Barrier(2)

    def hold() -> None:
        with service.engine._changed:  # type: ignore[attr-defined]
            held.wait()
            over.wait(60)

    pools = [service._tokenizer, service._writer, *service._beside.values()]
    with ThreadPoolExecutor(1) as step:
        step.submit(hold)
        held.wait()
        for pool in pools:
            for _ in range(pool._threads._max_workers):
                pool._threads.submit(over.wait, 60)
        try:
            yield
        finally:
            over.set()


def test_a_refusal_needs_no_thread_and_nothing_of_the_engine(full: Service) -> None:
    with all_at_work(full):
        answers, _ = asyncio.run(asyncio.wait_for(ask(full, RequestLog(to=io.StringIO()), 3), 30))
    for answer in answers:
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 429 ")
        assert b"retry-after: 1" in head
        assert json.loads(body)["error"]["code"] == "rate_limit_exceeded"


def test_a_crowd_that_is_refused_goes_by_in_a_few_rounds(full: Service) -> None:
    written = Counted()
    answers, rounds = asyncio.run(ask(full, RequestLog(to=written), CROWD))
    assert all(answer.startswith(b"HTTP/1.1 429 ") for answer in answers)
    assert rounds <= CROWD / REFUSED_AT_ONCE + 5
    assert written.times <= rounds
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line["route"], line["status"]) for line in lines] == [(CHAT, 429)] * CROWD


def test_requests_that_find_room_are_read_a_few_at_a_time(served_model: Path) -> None:
    async def count(queue: Queue) -> int:
        turns = build_server(inside.OPEN.around(FastAPI(), queue), queue).server_state.turns
        return sum(turns.may_go(b"POST") for _ in range(100))

    with inside.service(served_model) as service, closing(Loading()) as loading:
        told = [asyncio.run(count(queue)) for queue in (service, loading)]
    assert told == [READ_AT_ONCE, REFUSED_AT_ONCE]
