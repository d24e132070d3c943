"""Load a model and serve it until told to stop."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

from tunesmith.errors import RequestError, require
from tunesmith.models.chat import load_chat_model
from tunesmith.serving.guard import Guard, is_loopback, read_key
from tunesmith.serving.service import Service

SECONDS_TO_DRAIN = 10


def serve(
    name: str,
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

    model = load_chat_model(name)
    served_name = Path(model.name).name
    app = build_app(Service(model, served_name), Guard(key, loopback))
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{listener.getsockname()[1]}"
    app.router.on_startup.append(lambda: ready(served_name, address))
    config = uvicorn.Config(
        app,
        http="h11",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=SECONDS_TO_DRAIN,
    )
    uvicorn.Server(config).run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except (OSError, OverflowError) as problem:
        listener.close()
        raise RequestError(
            f"the address {host}:{port} cannot be used: {problem}",
            hint="choose another --port; 0 takes a free one",
            where="--port",
        ) from None
    return listener
