"""A server inside the test's own process."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from fastapi.testclient import TestClient

from tests.unit.serving.running import Client
from tunesmith.inference.batching.build import build_engine
from tunesmith.inference.engine import Engine, Piece, Request
from tunesmith.inference.sampling import Sampling
from tunesmith.serving.access import Access
from tunesmith.serving.app import build_app
from tunesmith.serving.guard import Guard
from tunesmith.serving.request_log import RequestLog
from tunesmith.serving.server import Answered, listen
from tunesmith.serving.service import Service

OPEN = Guard(Access(), loopback=True)


@contextmanager
def service(folder: Path, **options: Any) -> Iterator[Service]:
    """An engine behind a queue."""
    with closing(
        Service(build_engine(folder, precision="fp32").engine, "tiny", **options)
    ) as found:
        yield found


@contextmanager
def asking(answers: Any, guard: Guard = OPEN) -> Iterator[TestClient]:
    """Ask an application that is not behind a socket."""
    app = build_app(answers, guard)
    with TestClient(app, "http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@contextmanager
def listening(answers: Any, guard: Guard = OPEN, log: RequestLog | None = None) -> Iterator[Client]:
    """Let answers be asked on a port of their own."""
    with hosting(build_app(answers, guard, log), answers) as client:
        yield client


@contextmanager
def hosting(app: Any, answers: Any) -> Iterator[Client]:
    """Let an application listen, in a thread."""
    with listen("127.0.0.1", 0) as listener, Answered(app, answers).at(listener):
        try:
            yield Client(f"http://127.0.0.1:{listener.getsockname()[1]}", answers.name)
        finally:
            answers.stop()


def heard(folder: Path, prompt: list[int], sampling: Sampling) -> str:
    """Ask an engine itself."""
    pieces: queue.Queue[Piece | Exception] = queue.Queue()
    texts = []
    with closing(build_engine(folder, precision="fp32").engine) as engine:
        engine.start(Request(prompt, sampling), pieces.put)
        while isinstance(piece := pieces.get(timeout=60), Piece):
            texts.append(piece.text)
            if piece.finish:
                return "".join(texts)
    raise piece


class Failing(Engine):
    """An engine that hears the model's prompts and then breaks."""

    width = 4

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def models(self) -> Any:
        return self._engine.models()

    def start(self, request: Any, hear: Any) -> Any:
        hear(RuntimeError("the canary is in the engine"))
        return self

    def cancel(self) -> None:
        """Nothing is in work."""

    def close(self) -> None:
        self._engine.close()
