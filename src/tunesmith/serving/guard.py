"""What is checked before a request reaches the application: who asks, from where, how much."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tunesmith.errors import RequestError, TunesmithError
from tunesmith.paths import expand
from tunesmith.serving.access import NEEDED, USUAL, Access, is_open
from tunesmith.serving.limits import MAX_BODY_BYTES, MAX_DEPTH, MAX_HEADER_BYTES, MAX_HEADERS
from tunesmith.serving.note import note_of
from tunesmith.serving.queue import Busy, Queue
from tunesmith.serving.replies.errors import body_of, error_body
from tunesmith.serving.replies.events import Json

Refusal = tuple[int, str, str, str]
"""Status, message, where and hint."""
TOO_LARGE: Refusal = (
    413,
    "the body is too large",
    "body",
    f"send at most {MAX_BODY_BYTES:,} bytes",
)
ANSWERS = frozenset(path for path, scope in NEEDED.items() if scope in USUAL)
STRINGS = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
BRACKETS = re.compile(rb"[\[\]{}]")
KINDS = {401: ("authentication_error", "invalid_api_key"), 403: ("permission_error", "")}


@dataclass(frozen=True)
class Guard:
    """What is checked before a request reaches the application.

    Attributes:
        loopback: accept only requests that name this machine, so that a page of another site
            open in a browser here cannot reach the model under a name of its own.
    """

    access: Access
    loopback: bool

    def around(self, app: ASGIApp, queue: Queue) -> ASGIApp:
        """Put the guard in front of an application."""

        async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            try:
                refusal = self.refuse(scope)
                if refusal is None:
                    _check_room(scope["path"], queue)
                    body = await _read_body(receive)
                    refusal = TOO_LARGE if body is None else refuse_depth(body)
            except TunesmithError as problem:
                status = 429 if isinstance(problem, Busy) else 503
                await Json(body_of(problem), status, {"Retry-After": "1"})(scope, receive, send)
                return
            if refusal is None:
                await app(scope, _replay(body or b"", receive), send)
            else:
                await _reply(refusal)(scope, receive, send)

        return guarded

    def refuse(self, scope: Scope) -> Refusal | None:
        """Say why a request is not to be let in, if it is not; note the key it came with."""
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        if refusal := _refuse_headers(scope["headers"]):
            return refusal
        host = headers.get(b"host", "")
        if self.loopback and not is_loopback(_without_port(host)):
            return 400, f"this server is not called {host!r}", "Host", "ask for 127.0.0.1"
        if self.loopback and _is_of_another_site(headers):
            return 403, "pages of other sites may not ask", "Origin", "ask from a program"
        return self._refuse_key(scope, headers) or _refuse_body(headers)

    def _refuse_key(self, scope: Scope, headers: Mapping[bytes, str]) -> Refusal | None:
        if self.access.keys is None or is_open(scope["path"]):
            return None
        key = self.access.find(headers.get(b"authorization", ""))
        if key is None:
            hint = "send the header `Authorization: Bearer KEY`"
            return 401, "the key is missing or wrong", "Authorization", hint
        note_of(scope).key = key.name
        if not key.may(scope["path"]):
            needed = NEEDED[scope["path"]]
            hint = f"use a key of that scope: tunesmith keys create NAME --scope {needed}"
            return 403, f"the key is not for {needed}", "Authorization", hint
        return None


def _refuse_headers(headers: Sequence[tuple[bytes, bytes]]) -> Refusal | None:
    if len(headers) > MAX_HEADERS:
        return 431, f"there are {len(headers)} headers", "headers", f"send at most {MAX_HEADERS}"
    size = sum(len(name) + len(value) for name, value in headers)
    if size > MAX_HEADER_BYTES:
        hint = f"send at most {MAX_HEADER_BYTES:,}"
        return 431, f"the headers have {size:,} bytes", "headers", hint
    return None


def _refuse_body(headers: Mapping[bytes, str]) -> Refusal | None:
    packing = headers.get(b"content-encoding", "identity")
    if packing.lower() != "identity":
        return 415, f"a body packed by {packing[:40]} is not read", "Content-Encoding", "unpack it"
    length = headers.get(b"content-length", "0")
    fine = length.isascii() and length.isdigit()
    return None if fine and int(length) <= MAX_BODY_BYTES else TOO_LARGE


def _check_room(path: str, queue: Queue) -> None:
    """Turn requests away before their bodies are read.

    Raises:
        Stopping: if the server is on its way out.
        Busy: if too many wait.
    """
    if path not in ("/health", "/ready"):
        queue.check_stopping()
    if path in ANSWERS:
        queue.check_room()


async def _read_body(receive: Receive) -> bytes | None:
    """Read a body; None if it is too large."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > MAX_BODY_BYTES:
            return None
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand a body that was read already to the application."""
    told = False

    async def replay() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


def refuse_depth(body: bytes) -> Refusal | None:
    """Say so if JSON is nested deeper than anybody needs; other bodies pass."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return None
    depth = 0
    for bracket in BRACKETS.finditer(STRINGS.sub(b"", body)):
        depth += 1 if bracket.group() in b"[{" else -1
        if depth > MAX_DEPTH:
            hint = f"nest at most {MAX_DEPTH} objects and lists"
            return 422, "the body is nested too deep", "body", hint
    return None


def _reply(refusal: Refusal) -> Json:
    status, message, where, hint = refusal
    kind, code = KINDS.get(status, ("invalid_request_error", ""))
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return Json(error_body(message, where, hint, kind=kind, code=code), status, headers)


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
