"""Hear what an engine says of one answer."""

from __future__ import annotations

import queue
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.inference.engine import Engine, Piece, Request

SECONDS = 60


@dataclass(frozen=True)
class Said:
    """All that was heard of an answer."""

    pieces: tuple[Piece, ...]

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)

    @property
    def tokens(self) -> list[int]:
        return [token.id for piece in self.pieces for token in piece.tokens]

    @property
    def finish(self) -> str | None:
        return self.pieces[-1].finish


def hear(engine: Engine, request: Request) -> Said:
    """Let an engine answer and wait for the end; what went wrong is raised."""
    return start(engine, request)()


def start(engine: Engine, request: Request) -> Callable[[], Said]:
    """Let an engine begin; return what waits for the end."""
    heard: queue.Queue[Piece | Exception] = queue.Queue()
    engine.start(request, heard.put)

    def wait() -> Said:
        pieces: list[Piece] = []
        while not pieces or pieces[-1].finish is None:
            piece = heard.get(timeout=SECONDS)
            if isinstance(piece, Exception):
                raise piece
            pieces.append(piece)
        return Said(tuple(pieces))

    return wait
