"""The outermost layer: gives each request its name, logs it, counts it, ends what it began."""

from __future__ import annotations

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.serving.access import NEEDED, OPEN_PATHS
from tunesmith.serving.note import NOTE, Note, choose_id

DECLARED = frozenset((*NEEDED, *OPEN_PATHS, "/version", "/v1/models", "/tokenize", "/detokenize"))
MODELS, MODEL = "/v1/models/", "/v1/models/{name:path}"
OTHER = "other"
"""What addresses are called that lead nowhere."""
Ended = Callable[[Note, str, int], None]
"""Told a request's note, its route and its status once its answer is over."""


def in_front(app: ASGIApp, ended: Ended) -> ASGIApp:
    """Put the outermost layer around an application."""

    async def fronted(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        note = scope[NOTE] = Note(choose_id(_header(scope, b"x-request-id")))
        status, begun = 499, False

        async def noted(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", note.id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        try:
            await app(scope, receive, noted)
        except Exception:
            if not begun:
                raise
        finally:
            note.ends.close()
            ended(note, route_of(scope), status)

    return fronted


def route_of(scope: Scope) -> str:
    """Return the address as it was declared, without what a client put into it."""
    route = scope.get("route")
    if route is not None:
        return str(route.path)
    path = scope["path"]  # of what was refused before it was looked up
    if path.startswith(MODELS):
        return MODEL
    return path if path in DECLARED else OTHER


def seconds_of(note: Note) -> float:
    """Return how long a request took."""
    return time.monotonic() - note.begun


def _header(scope: Scope, name: bytes) -> str | None:
    found = next((value for key, value in scope["headers"] if key == name), None)
    return found.decode("latin-1") if found is not None else None
