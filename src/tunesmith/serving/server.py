"""Answer at an address until told to stop."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from tunesmith.errors import RequestError
from tunesmith.serving.connections import PatientProtocol
from tunesmith.serving.limits import MAX_HEADER_BYTES, SECONDS_TO_DRAIN
from tunesmith.serving.loading import Entrance
from tunesmith.serving.queue import Queue
from tunesmith.serving.turns import Shared

Handler = Callable[[int, FrameType | None], object]
STOPS = (signal.SIGTERM, signal.SIGINT)
SECONDS_TO_CLOSE = 1
"""What connections get to send their last bytes, once all answers are over or were ended."""


class DrainingServer(uvicorn.Server):
    """A server that, told to stop, refuses new requests and lets those in work end.

    Attributes:
        queue: whose answers it waits for.
    """

    def __init__(self, config: uvicorn.Config, queue: Queue) -> None:
        super().__init__(config)
        self.queue = queue
        self.server_state = Shared(lambda: self.queue.refuses)
        self._ends: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop; a second signal stops at once."""
        if self._ends is not None:
            self.should_exit = True
            return
        self.queue.stopping, self._ends = True, time.monotonic() + SECONDS_TO_DRAIN

    async def on_tick(self, counter: int) -> bool:
        """Say whether it is time to close, ten times a second."""
        over = await super().on_tick(counter)
        if self._ends is None:
            return over
        if over or time.monotonic() > self._ends:
            self.queue.stop()
            return True
        return not self.queue.taken


class Answered:
    """An address that is answered, in a thread of its own.

    Args:
        app: what answers at first.
    """

    def __init__(self, app: ASGIApp, queue: Queue) -> None:
        self.entrance = Entrance(app)
        self.server = build_server(self.entrance, queue)
        self._done: Future[None] = Future()
        self._is_open = False

    def open(self, app: ASGIApp, queue: Queue) -> None:
        """Let another application answer from now on."""
        self.server.queue, self.entrance.app, self._is_open = queue, app, True

    def handle(self, sig: int, frame: FrameType | None) -> None:
        """Let all answers end where a signal asks for the end; at first there are none."""
        if self._is_open:
            self.server.handle_exit(sig, frame)
        elif sig == signal.SIGINT:
            raise KeyboardInterrupt
        else:
            sys.exit(0)

    def wait(self) -> None:
        """Wait until a signal asks for the end, and all answers are over."""
        self._done.result()

    @contextmanager
    def at(self, listener: socket.socket) -> Iterator[Answered]:
        """Answer for as long as the block lasts."""
        with ThreadPoolExecutor(1, "server") as threads:
            self._done = threads.submit(self.server.run, [listener])
            try:
                yield self
            finally:
                self.server.should_exit = self.server.force_exit = True


def build_server(app: ASGIApp, queue: Queue) -> DrainingServer:
    """Put together what listens."""
    config = uvicorn.Config(
        app,
        http=PatientProtocol,
        ws="none",
        lifespan="off",
        log_config=None,  # its own would close what others log to
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=MAX_HEADER_BYTES,
        timeout_graceful_shutdown=SECONDS_TO_CLOSE,
    )
    return DrainingServer(config, queue)


@contextmanager
def handled_by(handler: Handler, *, ends: bool) -> Iterator[None]:
    """Let the signals that ask for the end be handled for as long as the block lasts.

    Args:
        ends: whether the process ends after the block, and hears no further signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {sig: signal.signal(sig, handler) for sig in STOPS}
    try:
        yield
    except Exception:
        ends = False
        raise
    finally:
        for sig, handled in before.items():
            signal.signal(sig, signal.SIG_IGN if ends else handled)


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
