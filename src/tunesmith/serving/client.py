"""Write a client that is ready to run against a server."""

from __future__ import annotations

import json
import socket
from importlib.resources import files
from string import Template
from typing import Literal, get_args

from tunesmith.errors import RequestError

Kind = Literal["curl", "python", "spring"]
KINDS: tuple[Kind, ...] = get_args(Kind)
ANYWHERE = ("0.0.0.0", "::")  # noqa: S104  what a server listens on, not what is opened here
KEY_HEADER = ' -H "Authorization: Bearer $TUNESMITH_KEY"'


def write_client(kind: str, *, host: str, port: int, model: str, asks_for_key: bool) -> str:
    """Return the text of a client.

    Raises:
        RequestError: if there is none of that kind, or the port is chosen only when serving.
    """
    if kind not in KINDS:
        raise RequestError(
            f"there is no client for {kind!r}",
            hint=f"there are {', '.join(KINDS)}",
            where="--print-client",
        )
    if port == 0:
        raise RequestError(
            "port 0 is chosen when the server starts, so no client can name it",
            hint="name a port",
            where="--port",
        )
    name = socket.gethostname() if host in ANYWHERE else host
    shown = f"[{name}]" if ":" in name else name
    text = files("tunesmith.serving.clients").joinpath(f"{kind}.txt").read_text("utf-8")
    return Template(text).substitute(
        url=f"http://{shown}:{port}/v1",
        model=json.dumps(model, ensure_ascii=False)[1:-1],
        auth=KEY_HEADER if asks_for_key else "",
    )
