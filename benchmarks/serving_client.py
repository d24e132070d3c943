"""Ask a server as many clients at once do, and note what each of them sees."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil

SECONDS, SECONDS_TO_END = 600, 30


@dataclass
class Seen:
    """What one client saw of one answer.

    Attributes:
        first: seconds until the first text.
        whole: seconds until the end.
    """

    text: str = ""
    num_tokens: int = 0
    first: float = 0.0
    whole: float = 0.0


@dataclass
class Watched:
    """What was seen of the server's processes while it answered."""

    peak_bytes: int = 0
    health: list[float] = field(default_factory=list)


def ask(port: int, body: dict[str, Any], seen: Seen) -> None:
    """Ask for one answer, streamed if the body says so."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    begun = time.perf_counter()
    connection.request(
        "POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(response.read()[:2000])
    if body.get("stream"):
        _read_stream(response, begun, seen)
    else:
        told = json.loads(response.read())
        seen.text, seen.num_tokens = told["choices"][0]["text"], told["usage"]["completion_tokens"]
        seen.first = time.perf_counter() - begun
    seen.whole = time.perf_counter() - begun
    connection.close()


def _read_stream(response: http.client.HTTPResponse, begun: float, seen: Seen) -> None:
    while line := response.readline():
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        told = json.loads(line[6:])
        for choice in told["choices"]:
            if choice.get("text"):
                seen.first = seen.first or time.perf_counter() - begun
                seen.text += choice["text"]
        if told.get("usage"):
            seen.num_tokens = told["usage"]["completion_tokens"]


def ask_all(port: int, bodies: Sequence[dict[str, Any]], streams: int) -> list[Seen]:
    """Ask for many answers, so many at a time."""
    seen = [Seen() for _ in bodies]
    waiting = list(range(len(bodies)))[::-1]
    failed: list[Exception] = []

    def client() -> None:
        while waiting and not failed:
            number = waiting.pop()
            try:
                ask(port, bodies[number], seen[number])
            except Exception as problem:  # noqa: BLE001  told to whoever measures
                failed.append(problem)

    threads = [threading.Thread(target=client, daemon=True) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
    return seen


def family(pid: int) -> list[psutil.Process]:
    """List a process and all that it started."""
    leader = psutil.Process(pid)
    return [leader, *leader.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Add up the processor time of a process and all that it started."""
    total = 0.0
    for process in family(pid):
        times = process.cpu_times()
        total += times.user + times.system
    ended = psutil.Process(pid).cpu_times()
    return total + ended.children_user + ended.children_system


def watching(pid: int, port: int, work: Callable[[], list[Seen]]) -> tuple[list[Seen], Watched]:
    """Do some work, and watch memory and /health of the server all the while."""
    watched, over = Watched(), threading.Event()
    watchers = [
        threading.Thread(target=_watch_memory, args=(pid, watched, over), daemon=True),
        threading.Thread(target=_watch_health, args=(port, watched, over), daemon=True),
    ]
    for watcher in watchers:
        watcher.start()
    try:
        return work(), watched
    finally:
        over.set()
        for watcher in watchers:
            watcher.join(SECONDS_TO_END)


def _watch_memory(pid: int, watched: Watched, over: threading.Event) -> None:
    while True:
        used = sum(process.memory_full_info().pss for process in family(pid))
        watched.peak_bytes = max(watched.peak_bytes, used)
        if over.wait(1.0):
            return


def _watch_health(port: int, watched: Watched, over: threading.Event) -> None:
    while not over.wait(0.2):
        begun = time.perf_counter()
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        connection.request("GET", "/health")
        connection.getresponse().read()
        connection.close()
        watched.health.append(time.perf_counter() - begun)
