"""The server under more than it can bear: slow clients, crowds, hours, an end in between.

What is measured is written to build/serving.json, and from there to the guide.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import signal
import socket
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving.running import Running, serving, wait_for

pytestmark = pytest.mark.proof
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]
SLOW = 200
CROWD = 500
SOAK_SECONDS = 30 * 60
MEASURED = Path(__file__).parents[3] / "build" / "serving.json"


@pytest.fixture
def alone(served_model: Path, tmp_path: Path) -> Iterator[Running]:
    """A server that nobody else asks, with as many places as the figures are stated for."""
    options = ("--max-active", "8", "--max-waiting", "32")
    with serving(served_model, tmp_path / "log.txt", *options) as running:
        yield running


def note(name: str, figures: dict[str, Any]) -> None:
    """Keep figures for the guide."""
    MEASURED.parent.mkdir(exist_ok=True)
    known = json.loads(MEASURED.read_text("utf-8")) if MEASURED.exists() else {}
    MEASURED.write_text(json.dumps({**known, name: figures}, indent=2) + "\n", "utf-8")


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def memory_mib(running: Running) -> float:
    pages = int(Path(f"/proc/{running.process.pid}/statm").read_text("ascii").split()[1])
    return pages * 4096 / 2**20


def descriptors(running: Running) -> int:
    return len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))


def timed(running: Running, method: str, path: str, body: Any = None) -> tuple[int, float, bool]:
    """Ask once; return status, seconds, and whether a refusal says when to come again."""
    content = None if body is None else json.dumps(body).encode()
    start = time.monotonic()
    reply = running.ask(method, path, content, {"Content-Type": "application/json"})
    return reply.status, time.monotonic() - start, "retry-after" in reply.headers


def dribble(running: Running, begun: bytes, closed: list[float]) -> None:
    """Send a byte a second until the server closes."""
    host, port = running.host.split(":")
    start = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=1) as connection:
        connection.sendall(begun)
        while time.monotonic() < start + 60:
            try:
                connection.sendall(b"x")
                if not connection.recv(65536):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
    closed.append(time.monotonic() - start)


def test_slow_clients_are_closed_in_time_while_others_are_served(alone: Running) -> None:
    begun = [
        b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
        b"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n{",
    ]
    closed: list[float] = []
    before = descriptors(alone)
    threads = [
        threading.Thread(target=dribble, args=(alone, begun[n % 2], closed)) for n in range(SLOW)
    ]
    for thread in threads:
        thread.start()
    times = []
    while any(thread.is_alive() for thread in threads):
        times.append(timed(alone, "GET", "/health")[1])
        status, seconds, _ = timed(alone, "POST", CHAT, {"messages": MESSAGES, "max_tokens": 4})
        assert status == 200
        times.append(seconds)
        time.sleep(0.05)
    figures = {
        "connections": SLOW,
        "closed_s": max(closed),
        "others_p99_s": percentile(times, 0.99),
    }
    note("slow_clients", figures)
    assert len(closed) == SLOW
    assert max(closed) <= 15
    assert percentile(times, 0.99) < 1
    wait_for(lambda: descriptors(alone) <= before + 2)


def crowd(host: str, port: int) -> list[tuple[int, float, bool]]:
    """Ask from many connections at once; return status, seconds, and whether to come again."""
    return asyncio.run(ask_at_once(host, port))


async def ask_at_once(host: str, port: int) -> list[tuple[int, float, bool]]:
    """Ask in one process of its own, so that nobody else waits for its turns."""
    body = json.dumps({"messages": MESSAGES, "max_tokens": 64}).encode()
    head = (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )

    async def ask() -> tuple[int, float, bool]:
        start = time.monotonic()
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head.encode() + body)
        reply = await reader.read()
        writer.close()
        return int(reply.split(b" ", 2)[1]), time.monotonic() - start, b"retry-after" in reply

    return list(await asyncio.gather(*(ask() for _ in range(CROWD))))


def test_a_crowd_is_answered_or_told_to_come_again(alone: Running) -> None:
    timed(alone, "POST", CHAT, {"messages": MESSAGES, "max_tokens": 64, "n": 8})
    memory, files, over = memory_mib(alone), descriptors(alone), threading.Event()
    health: list[float] = []

    def watch() -> None:
        while not over.is_set():
            health.append(timed(alone, "GET", "/health")[1])
            time.sleep(0.05)

    host, port = alone.host.split(":")
    with multiprocessing.get_context("fork").Pool(1) as pool:  # its delays are not the server's
        watching = threading.Thread(target=watch)
        watching.start()
        told = pool.apply(crowd, (host, int(port)))
        over.set()
        watching.join()
    refusals = [seconds for status, seconds, _ in told if status == 429]
    figures = {
        "clients": CROWD,
        "statuses": {str(key): n for key, n in Counter(one[0] for one in told).items()},
        "refusal_p99_s": percentile(refusals, 0.99),
        "health_p99_s": percentile(health, 0.99),
        "memory_growth_mib": memory_mib(alone) - memory,
    }
    note("crowd", figures)
    assert {status for status, _, _ in told} <= {200, 429}
    assert all(comes for status, _, comes in told if status == 429)
    assert figures["refusal_p99_s"] <= 1
    assert figures["health_p99_s"] <= 0.5
    assert figures["memory_growth_mib"] <= 200
    wait_for(lambda: descriptors(alone) <= files + 2)


def mixed(running: Running, turn: int) -> int:
    """Ask for one of many things, and leave one of them early."""
    streamed = {"messages": MESSAGES, "max_tokens": 40, "stream": True, "temperature": 1.0}
    asked: list[tuple[str, Any]] = [
        (CHAT, {"messages": MESSAGES, "max_tokens": 24}),
        (CHAT, streamed),
        ("/v1/completions", {"prompt": ["what is", "who"], "max_tokens": 12, "n": 2}),
        ("/v1/responses", {"input": "what is it?", "max_output_tokens": 16, "stream": True}),
        ("/v1/embeddings", {"input": ["what is it", "who are you"]}),
        ("/tokenize", {"messages": MESSAGES}),
        (CHAT, {"messages": "odd"}),
    ]
    path, body = asked[turn % len(asked)]
    if turn % 11 == 0:
        connection = running.connect()
        content = json.dumps({**streamed, "max_tokens": 5000}).encode()
        connection.request("POST", CHAT, content, {"Content-Type": "application/json"})
        connection.getresponse().read(200)
        connection.close()
        return 200
    return timed(running, "POST", path, body)[0]


def test_hours_of_mixed_work_leave_no_trace(alone: Running) -> None:
    ends, statuses, memory = time.monotonic() + SOAK_SECONDS, Counter[int](), []
    lock, turns = threading.Lock(), iter(range(10**9))

    def ask() -> None:
        while time.monotonic() < ends:
            with lock:
                turn = next(turns)
            status = mixed(alone, turn)
            with lock:
                statuses[status] += 1

    files = descriptors(alone)
    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        memory.append(memory_mib(alone))
        time.sleep(10)
    half = len(memory) // 2
    growth = statistics.median(memory[-half // 2 :]) - statistics.median(
        memory[half : half * 3 // 2]
    )
    note(
        "soak",
        {
            "minutes": SOAK_SECONDS / 60,
            "requests": sum(statuses.values()),
            "statuses": {str(key): n for key, n in statuses.items()},
            "memory_growth_second_half_mib": growth,
        },
    )
    assert not [status for status in statuses if status >= 500]
    assert set(statuses) <= {200, 422, 429}
    assert growth < 16
    wait_for(lambda: descriptors(alone) <= files + 3)


def test_sigterm_under_load_drains_in_time(served_model: Path, tmp_path: Path) -> None:
    with serving(served_model, tmp_path / "log.txt", "--max-active", "8") as own:
        told: list[tuple[int, bool]] = []

        def ask() -> None:
            asked = {"messages": MESSAGES, "max_tokens": 200, "stream": True}
            try:
                reply = own.post(CHAT, asked)
            except OSError:
                told.append((0, False))
            else:
                told.append((reply.status, reply.body.endswith(b"data: [DONE]\n\n")))

        threads = [threading.Thread(target=ask) for _ in range(24)]
        for thread in threads:
            thread.start()
        wait_for(own.busy)
        time.sleep(0.5)
        own.process.send_signal(signal.SIGTERM)
        start = time.monotonic()
        late = [own.post(CHAT, {"messages": MESSAGES}).status for _ in range(3)]
        code = own.process.wait(30)
        seconds = time.monotonic() - start
        for thread in threads:
            thread.join()
    note("sigterm", {"clients": 24, "drained_s": seconds, "code": code})
    assert code == 0
    assert seconds <= 13
    assert late == [503] * 3
    assert [whole for status, whole in told if status == 200] == [True] * 24
