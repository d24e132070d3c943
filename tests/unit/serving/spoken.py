"""OpenAI's client on a server in this process, with an engine that says what it is told."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import openai
import uvicorn

from tunesmith.inference.engine import Engine, Hear, Piece, Request, Speech, Token, Work
from tunesmith.inference.generate import Answer
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.tool_calls import ToolFormat
from tunesmith.serving.access import Access
from tunesmith.serving.app import build_app
from tunesmith.serving.guard import Guard
from tunesmith.serving.request_log import RequestLog
from tunesmith.serving.service import Service


class Nothing(Work):
    """An answer that was over at once."""

    def __init__(self) -> None:
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Scripted(Engine):
    """Say one text after the other, a letter at a time, and keep what was asked."""

    speech: Speech
    says: list[str]
    asked: list[Request] = field(default_factory=list)
    works: list[Nothing] = field(default_factory=list)
    width: int = 8

    def models(self) -> Mapping[str, Speech]:
        return {"scripted": self.speech}

    def start(self, request: Request, hear: Hear) -> Work:
        self.asked.append(request)
        self.works.append(Nothing())
        for letter in self.says.pop(0):
            hear(Piece(letter, (Token(1),)))
        hear(Piece("", (), "stop"))
        return self.works[-1]

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        raise NotImplementedError

    def close(self) -> None:
        """Nothing is held."""

    def prompt(self, at: int = -1) -> str:
        """What the model was given."""
        return self.speech.decode(self.asked[at].prompt, keep_special=True)


@contextmanager
def connected(engine: Engine, tools: ToolFormat | None = None) -> Iterator[openai.OpenAI]:
    """Let OpenAI's client ask an engine; closes it in the end."""
    service = Service(engine, "model", tools=tools)
    app = build_app(service, Guard(Access(), loopback=True), RequestLog())
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        try:
            with openai.OpenAI(
                base_url=f"http://127.0.0.1:{port}/v1", api_key="unused", max_retries=0
            ) as client:
                yield client
        finally:
            server.should_exit = True
            thread.join()
            service.close()
