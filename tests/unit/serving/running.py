"""A real server in a process of its own, and plain requests to it."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil


@dataclass(frozen=True)
class Reply:
    """What a server answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error in the body."""
        found: dict[str, Any] = self.json["error"]
        return found


@dataclass(frozen=True)
class Client:
    """Whoever asks a server."""

    address: str
    model: str

    @property
    def host(self) -> str:
        """Name and port, as a `Host` header has them."""
        return urlsplit(self.address).netloc

    def connect(self, timeout: float = 60) -> http.client.HTTPConnection:
        """Open a connection."""
        return http.client.HTTPConnection(self.host, timeout=timeout)

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Reply:
        """Send one request and read all of its answer."""
        connection = self.connect()
        try:
            connection.request(method, path, body, dict(headers or {}))
            answer = connection.getresponse()
            found = {name.lower(): value for name, value in answer.getheaders()}
            return Reply(answer.status, found, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Reply:
        """Get a page."""
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, content: object, **headers: str) -> Reply:
        """Send JSON."""
        sent = {"Content-Type": "application/json", **headers}
        return self.ask("POST", path, json.dumps(content).encode(), sent)


@dataclass(frozen=True)
class Running(Client):
    """A server in a process of its own."""

    process: subprocess.Popen[str]
    log: Path

    @contextmanager
    def writing(self, path: str, content: object) -> Iterator[http.client.HTTPConnection]:
        """Let the model write for as long as the block lasts, then hang up."""
        connection = self.connect()
        body = json.dumps(content).encode()
        try:
            connection.request("POST", path, body, {"Content-Type": "application/json"})
            wait_for(self.busy)
            yield connection
        finally:
            connection.close()

    def busy(self) -> bool:
        """Whether the model is at work, which shows in the processor time of the process."""
        ticks = []
        for _ in range(2):
            fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rsplit(")", 1)[1]
            ticks.append(sum(map(int, fields.split()[11:13])))
            time.sleep(0.2)
        return ticks[1] - ticks[0] >= 2

    def idle_after(self) -> float:
        """Wait until the model rests; return how many seconds that took."""
        start = time.monotonic()
        wait_for(lambda: not self.busy(), 20)
        return time.monotonic() - start


@contextmanager
def serving(folder: Path, log: Path, *options: str, **started: Any) -> Iterator[Running]:
    """Run `tunesmith serve` on a free port until the block ends."""
    process = start(folder, log, *options, **started)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line.startswith("serving "), log.read_text("utf-8")
        _, model, _, address = line.split()
        yield Running(address, model, process, log)
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait(10)
        process.stdout.close()


def start(
    folder: Path,
    log: Path,
    *options: str,
    environment: Mapping[str, str] | None = None,
    before: Sequence[str] = (),
) -> subprocess.Popen[str]:
    """Start `tunesmith serve` and leave its output to be read.

    Args:
        before: a command that starts it.
    """
    command = [sys.executable, "-m", "tunesmith", "serve", str(folder), "--port", "0", *options]
    with log.open("w", encoding="utf-8") as errors:
        return subprocess.Popen(
            [*before, *command],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "TUNESMITH_CONFIG": str(log.parent / "config"),
                **(environment or {}),
            },
        )


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.01)


def raw(server: Client, request: bytes, *, read: bool = True) -> bytes:
    """Send bytes as they are and return what comes back."""
    host, port = server.host.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(request)
        return b"".join(iter(lambda: connection.recv(65536), b"")) if read else b""
