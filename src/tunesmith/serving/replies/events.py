"""Server-sent events, and plain JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, suppress
from typing import Any, TypeVar

import orjson
from fastapi import HTTPException, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {}}}}
"""What a description says of an answer that may come in pieces."""
DONE = b"data: [DONE]\n\n"
CLIENT_GONE = 499
"""What web servers note when nobody is left to answer to."""
Result = TypeVar("Result")


class ClientGone(Exception):
    """Nobody waits for an answer any longer."""


class Json(Response):
    """An answer in one piece."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Spell it."""
        return orjson.dumps(content)


def event(content: dict[str, Any], name: str = "") -> bytes:
    """Spell an event."""
    head = f"event: {name}\n".encode() if name else b""
    return head + b"data: " + orjson.dumps(content) + b"\n\n"


class Events(Response):
    """A stream that leaves its work at once when the client goes, even if it never read."""

    def __init__(self, events: AsyncGenerator[bytes, None]) -> None:
        self._events = events
        self.status_code, self.background = 200, None
        self.init_headers({"cache-control": "no-cache", "content-type": "text/event-stream"})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, then close where they come from."""
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        with suppress(ClientGone):
            await unless_gone(self._send(send, start), receive)

    async def _send(self, send: Send, start: dict[str, Any]) -> None:
        await send(start)
        async with aclosing(self._events) as events:
            async for content in events:
                await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def unless_gone(work: Coroutine[None, None, Result], receive: Receive) -> Result:
    """Wait for some work, and leave it as soon as nobody waits for it any longer.

    Raises:
        ClientGone: if it was left.
    """
    working, watching = asyncio.create_task(work), asyncio.create_task(_wait_for_end(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


async def _wait_for_end(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def answered(work: Coroutine[None, None, dict[str, Any]], request: Request) -> Json:
    """Answer in one piece, unless the client leaves before."""
    try:
        return Json(await unless_gone(work, request.receive))
    except ClientGone:
        raise HTTPException(CLIENT_GONE, "the client is gone") from None
