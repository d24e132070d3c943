"""A server that stands in for others: it says what it was told to, and notes what it is asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class StandIn:
    """What it says, and what it was asked.

    Attributes:
        events: sent as server-sent events to any post; a number waits so many seconds.
        status: of every answer.
        gone: set when a client hung up before the end.
    """

    events: Sequence[Any] = ()
    status: int = 200
    body: bytes = b'{"object": "list", "data": [{"id": "far"}]}'
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)
    gone: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


class Server(ThreadingHTTPServer):
    """A server that says what it was told to."""

    def __init__(self, stand_in: StandIn) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stand_in = stand_in
        stand_in.port = self.server_address[1]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.note(None)
        self.begin("application/json")
        self.wfile.write(self.server.stand_in.body)

    def do_POST(self) -> None:
        said = self.server.stand_in
        self.note(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        if said.status != 200:
            self.begin("application/json")
            self.wfile.write(said.body)
            return
        self.begin("text/event-stream")
        try:
            for event in said.events:
                self.say(event)
        except OSError:
            said.gone.set()

    def say(self, event: Any) -> None:
        if isinstance(event, int | float):
            time.sleep(event)
        else:
            line = event if isinstance(event, bytes) else json.dumps(event).encode()
            self.wfile.write(b"data: " + line + b"\n\n")
            self.wfile.flush()

    def note(self, body: Any) -> None:
        self.server.stand_in.asked.append((self.path, dict(self.headers), body))

    def begin(self, kind: str) -> None:
        self.send_response(self.server.stand_in.status)
        self.send_header("Content-Type", kind)
        for name, value in self.server.stand_in.headers.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def standing_in(stand_in: StandIn) -> Iterator[StandIn]:
    """Serve it on a port of its own until the block ends."""
    server = Server(stand_in)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield stand_in
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
