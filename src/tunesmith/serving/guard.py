"""Who may ask, and how much at once: keys, host names, sizes."""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from fastapi import HTTPException

from tunesmith.errors import RequestError
from tunesmith.paths import expand
from tunesmith.serving.replies import error_body

MAX_BODY_BYTES = 8 << 20
OPEN_PATHS = ("/health", "/docs", "/openapi.json")
OPEN_FOLDER = "/static-offline-docs/"
"""What a browser loads for /docs, which asks for the key itself."""
TOO_LARGE, SEND_LESS = "the body is too large", f"send at most {MAX_BODY_BYTES:,} bytes"
Handler = Callable[..., Any]


@dataclass(frozen=True)
class Guard:
    """What is checked before a request reaches the application.

    Attributes:
        key: clients must send it as `Authorization: Bearer KEY`; None lets everybody in.
        loopback: accept only requests that name this machine, so that a page of another site
            open in a browser here cannot reach the model under a name of its own.
    """

    key: str | None
    loopback: bool

    def middleware(self) -> Handler:
        """Return the class that an application puts in front of itself."""
        guard = self

        class Middleware:
            def __init__(self, app: Handler) -> None:
                self.app = app

            async def __call__(self, scope: Any, receive: Handler, send: Handler) -> None:
                if scope["type"] != "http":
                    await self.app(scope, receive, send)
                elif refusal := guard.refuse(scope):
                    await _reply(send, *refusal)
                else:
                    await self.app(scope, _limited(receive), send)

        return Middleware

    def refuse(self, scope: Any) -> tuple[int, str, str, str] | None:
        """Return status, message, where and hint if a request is not to be let in."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get(b"host", "")
        if self.loopback and not is_loopback(_without_port(host)):
            return 400, f"this server is not called {host!r}", "Host", "ask for 127.0.0.1"
        if self.loopback and _is_of_another_site(headers):
            return 403, "pages of other sites may not ask", "Origin", "ask from a program"
        if not (_is_open(scope["path"]) or self._knows(headers.get(b"authorization", ""))):
            hint = "send the header `Authorization: Bearer KEY`"
            return 401, "the key is missing or wrong", "Authorization", hint
        length = headers.get(b"content-length", "0")
        if not length.isdigit() or int(length) > MAX_BODY_BYTES:
            return 413, TOO_LARGE, "body", SEND_LESS
        return None

    def _knows(self, header: str) -> bool:
        if self.key is None:
            return True
        scheme, _, given = header.partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.key.encode())
        return same and scheme.lower() == "bearer"


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(OPEN_FOLDER)


def _limited(receive: Handler) -> Handler:
    """Count the bytes of a body that does not say how long it is."""
    seen = 0

    async def receive_limited() -> Any:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > MAX_BODY_BYTES:
            raise HTTPException(413, error_body(TOO_LARGE, "body", SEND_LESS))
        return message

    return receive_limited


async def _reply(send: Handler, status: int, message: str, where: str, hint: str) -> None:
    body = orjson.dumps(
        error_body(message, where, hint, kind="authentication_error", code="invalid_api_key")
        if status == 401
        else error_body(message, where, hint)
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    name = name if colon and port.isdigit() else host
    return name.lower().removeprefix("[").removesuffix("]")


def _is_of_another_site(headers: Mapping[bytes, str]) -> bool:
    """Whether a browser says that a page from elsewhere asks, which a key would not tell."""
    origin = headers.get(b"origin")
    if origin is None:
        return headers.get(b"sec-fetch-site") == "cross-site"
    return not is_loopback(_without_port(origin.partition("://")[2]))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(path: Path) -> str:
    """Read a key from a file of one line.

    Raises:
        RequestError: if it cannot be read, or holds nothing that a header can carry.
    """
    try:
        key = expand(path).read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as problem:
        raise RequestError(
            f"the key cannot be read: {problem}",
            hint="write the key into the file, one line",
            where=str(path),
        ) from None
    if not key or not key.isascii() or any(character.isspace() for character in key):
        raise RequestError(
            "the file holds no usable key",
            hint="write one line of letters, digits and signs, without spaces",
            where=str(path),
        )
    return key
