"""Connections that come to an end: uvicorn itself waits for slow clients forever."""

from __future__ import annotations

import asyncio
import sys
import time
from functools import partial
from typing import Any

import h11
import orjson
from uvicorn.protocols.http.h11_impl import STATUS_PHRASES, H11Protocol

from tunesmith.serving.limits import (
    BODY_BYTES_PER_SECOND,
    MAX_CONNECTIONS,
    MAX_HEADER_BYTES,
    SECONDS_FOR_BODY,
    SECONDS_FOR_HEAD,
    SECONDS_TO_READ,
)
from tunesmith.serving.replies.errors import error_body
from tunesmith.serving.turns import Shared

REFUSED = {
    400: ("this is no HTTP request", "send HTTP/1.1"),
    408: ("the request did not come in time", "send it at once"),
    501: ("the body is packed", "send it as it is, whole or chunked"),
    431: ("the headers are too large", f"send at most {MAX_HEADER_BYTES:,} bytes"),
}


class PatientProtocol(H11Protocol):
    """One connection, with a time for the head of a request, for its body, and to be read."""

    _awaited = ""
    _deadline = 0.0
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection, if there is room for one."""
        super().connection_made(transport)
        assert isinstance(self.server_state, Shared)
        self._turns = self.server_state.turns
        if len(self.connections) > MAX_CONNECTIONS:
            transport.abort()
            return
        self._watch(0)

    def connection_lost(self, exc: Exception | None) -> None:
        """Let go of it."""
        self._drop(self._timer)
        self._drop(self._stalled)
        self._timer = self._stalled = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on, or wait for a turn where a request begins."""
        begins = self.cycle is None or self.cycle.response_complete  # type: ignore[redundant-expr]
        if not begins or self._turns.may_go(data):
            self._read(data)
            return
        self.transport.pause_reading()
        self._turns.wait(partial(self._read_in_turn, data))

    def _read_in_turn(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()
            self._read(data)

    def _read(self, data: bytes) -> None:
        """Read, and see what is still to come."""
        super().data_received(data)
        self._watch(len(data))

    def on_response_complete(self) -> None:
        """Go over to the next request; until it begins, uvicorn counts the time."""
        self._drop(self._timer)
        self._timer, self._awaited = None, ""
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for a client that does not read, but not for long."""
        super().pause_writing()
        self._stalled = self.loop.call_later(SECONDS_TO_READ, self.transport.abort)

    def resume_writing(self) -> None:
        """Write on."""
        self._drop(self._stalled)
        self._stalled = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no request, in the form of all errors.

        Called where the reason is being handled.
        """
        problem = sys.exception()
        hint = problem.error_status_hint if isinstance(problem, h11.RemoteProtocolError) else 400
        self._refuse(hint if hint in REFUSED else 400)

    def _refuse(self, status: int) -> None:
        if self.conn.our_state not in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.close()
            return
        message, hint = REFUSED[status]
        body = orjson.dumps(error_body(message, "request", hint))
        headers = [
            (b"content-type", b"application/json"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        reason = STATUS_PHRASES[status]
        events: list[Any] = [
            h11.Response(status_code=status, headers=headers, reason=reason),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ]
        self.transport.write(b"".join(filter(None, map(self.conn.send, events))))
        self.transport.close()

    def _watch(self, received: int) -> None:
        """Set a time for what is still to come: the head of a request, or the rest of its body."""
        if self.cycle is None or self.cycle.response_complete:  # type: ignore[redundant-expr]
            awaited, seconds = "head", SECONDS_FOR_HEAD
        elif self.cycle.more_body:
            awaited, seconds = "body", SECONDS_FOR_BODY
        else:
            awaited, seconds = "", 0
        now = time.monotonic()
        if awaited != self._awaited:
            self._awaited, self._deadline = awaited, now + seconds
            self._drop(self._timer)
            self._timer = self.loop.call_later(seconds, self._end) if awaited else None
        elif awaited == "body":
            self._deadline += received / BODY_BYTES_PER_SECOND

    def _end(self) -> None:
        """Close a connection whose time is over; come again if it got more."""
        if (left := self._deadline - time.monotonic()) > 0:
            self._timer = self.loop.call_later(left, self._end)
        elif not self.transport.is_closing():
            self._refuse(408) if self._awaited == "head" else self.transport.close()

    @staticmethod
    def _drop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()
