"""Load a model and serve it until told to stop."""

from __future__ import annotations

import errno
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.errors import RequestError, require
from tunesmith.models.chat import Subject, load_chat_model
from tunesmith.paths import exists, expand
from tunesmith.serving.guard import Guard, is_loopback, read_key
from tunesmith.serving.service import Service

SECONDS_TO_DRAIN = 10


def serve(
    name: str | Subject,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    key_file: Path | None = None,
    ready: Callable[[str, str], None] = lambda model, address: None,
) -> None:
    """Serve a run, a checkpoint or a model folder over HTTP.

    Args:
        port: 0 takes a free one.
        key_file: holds the key that clients must send; needed beyond this machine.
        ready: called with the model's name and the address once requests are accepted.

    Raises:
        RequestError: if the address would be open to others without a key, or is taken.
        SystemExit: with code 0, when SIGTERM asks for the end.
    """
    uvicorn = require("uvicorn", extra="serve")
    require("fastapi", extra="serve")
    require("fastapi_offline", extra="serve")
    loopback = is_loopback(host)
    if not loopback and key_file is None:
        raise RequestError(
            f"at {host} others could use the model without a key",
            hint="name a file that holds a key with --api-key-file, or leave --host out",
            where="--host",
        )
    key = read_key(key_file) if key_file else None
    listener = _listen(host, port)
    from tunesmith.serving.app import build_app

    with listener, ended_by_sigterm():
        model = load_chat_model(name)
        app = build_app(Service(model, served_name(model.name)), Guard(key, loopback))
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{listener.getsockname()[1]}"
        app.router.on_startup.append(lambda: ready(served_name(model.name), address))
        config = uvicorn.Config(
            app,
            http="h11",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=SECONDS_TO_DRAIN,
        )
        uvicorn.Server(config).run(sockets=[listener])


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


def served_name(name: str) -> str:
    """Return what clients call a model: the last part of its name or path."""
    path = expand(name)
    return (path.resolve() if exists(path) else path).name or name


def _listen(host: str, port: int) -> socket.socket:
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


def _is_about_host(problem: Exception) -> bool:
    """Whether an address is none of this machine, has no such form, or is a name nobody knows."""
    lacking = isinstance(problem, OSError) and problem.errno == errno.EADDRNOTAVAIL
    return lacking or isinstance(problem, socket.gaierror | UnicodeError)
