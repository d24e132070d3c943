"""Load a model and serve it until told to stop."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from tunesmith.errors import RequestError
from tunesmith.serving.connections import PatientProtocol
from tunesmith.serving.limits import MAX_HEADER_BYTES, SECONDS_TO_DRAIN
from tunesmith.serving.queue import Queue

SECONDS_TO_CLOSE = 1
"""What connections get to send their last bytes, once all answers are over or were ended."""


class DrainingServer(uvicorn.Server):
    """A server that, told to stop, refuses new requests and lets those in work end."""

    def __init__(self, config: uvicorn.Config, queue: Queue, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._queue, self._ready = queue, ready
        self._ends: float | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to accept requests, and say so."""
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal stops at once."""
        if self._ends is not None:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        self._queue.stopping, self._ends = True, time.monotonic() + SECONDS_TO_DRAIN

    async def on_tick(self, counter: int) -> bool:
        """Say whether it is time to close, ten times a second."""
        over = await super().on_tick(counter)
        if over or self._ends is None:
            return over
        if time.monotonic() > self._ends:
            self._queue.stop()
            return True
        return not self._queue.taken


def run_app(app: ASGIApp, queue: Queue, listener: socket.socket, ready: Callable[[], None]) -> None:
    """Answer requests until SIGTERM or SIGINT.

    Args:
        ready: called once requests are accepted.
    """
    build_server(app, queue, ready).run(sockets=[listener])


def build_server(app: ASGIApp, queue: Queue, ready: Callable[[], None]) -> DrainingServer:
    """Put together what listens."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=SECONDS_TO_CLOSE,
    )
    return DrainingServer(config, queue, ready)


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process with code 0; uvicorn raises it again once it has drained."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def listen(host: str, port: int) -> socket.socket:
    """Take an address.

    Raises:
        RequestError: if it is taken, or none of this machine.
    """
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()  # who asks as soon as the address is told waits, and is not refused
    except (OSError, OverflowError, UnicodeError) as problem:
        listener.close()
        where, hint = "--port", "choose another --port; 0 takes a free one"
        if _is_about_host(problem):
            where, hint = "--host", "name an address of this machine"
        raise RequestError(
            f"the address {host}:{port} cannot be used: {problem}", hint=hint, where=where
        ) from None
    return listener


def shown(host: str, listener: socket.socket) -> str:
    """Return the address as clients write it."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"


def _is_about_host(problem: Exception) -> bool:
    """Whether an address is none of this machine, has no such form, or is a name nobody knows."""
    lacking = isinstance(problem, OSError) and problem.errno == errno.EADDRNOTAVAIL
    return lacking or isinstance(problem, socket.gaierror | UnicodeError)
