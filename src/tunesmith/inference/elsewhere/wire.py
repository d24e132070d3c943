"""Ask another process over HTTP: one address, one parser, no redirects, no proxies."""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import orjson

from tunesmith.errors import EngineError, RequestError
from tunesmith.logs import logger

MOST_BYTES = 64 << 20
LONGEST_LINE = 8 << 20
DONE = b"[DONE]"
LINES_TOLD = 8
log = logger(__name__)


@dataclass(frozen=True)
class Address:
    """Where a server listens; nothing else is ever asked.

    Attributes:
        path: what stands before every path, such as `/v1`.
        key: sent as `Authorization: Bearer KEY`; none if empty.
        seconds: how long the server may say nothing.
        said: what it wrote to its log last, where that is known.
    """

    host: str
    port: int
    key: str = ""
    path: str = ""
    secure: bool = False
    seconds: float = 600
    said: Callable[[], Sequence[str]] = tuple

    def __str__(self) -> str:
        """Spell it without the key."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.secure else ''}://{host}:{self.port}{self.path}"

    def ask(self, path: str, content: Mapping[str, Any] | None = None) -> Any:
        """Return what JSON a server answers; content is posted, its absence gets.

        Raises:
            RequestError: if it refuses the request.
            EngineError: if it cannot be reached or understood.
        """
        with self.open(path, content) as reply:
            return reply.json()

    def tell(self, path: str, content: Mapping[str, Any]) -> None:
        """Post what is answered by no JSON.

        Raises:
            RequestError: if the server refuses it.
            EngineError: if it cannot be reached.
        """
        with self.open(path, content):
            return

    def open(self, path: str, content: Mapping[str, Any] | None = None) -> Reply:
        """Ask, and return the answer before it is read.

        Raises:
            RequestError: if the server refuses the request.
            EngineError: if it cannot be reached.
        """
        connection = self._connection()
        reply: Reply | None = None
        try:
            connection.connect()
            reply = Reply(self, connection)
            body = None if content is None else orjson.dumps(content)
            method = "GET" if content is None else "POST"
            connection.request(method, self.path + path, body, self._headers())
            reply.begin()
        except BaseException as problem:
            connection.close()
            if reply is not None:
                reply.close()
            if isinstance(problem, OSError | http.client.HTTPException):
                raise self.unreachable(problem) from None
            raise
        return reply

    def unreachable(self, problem: object) -> EngineError:
        """Say that the server does not answer as it should; its log is for ours only."""
        if said := self.said()[-LINES_TOLD:]:
            log.error("%s said last:\n%s", self, "\n".join(said))
        return EngineError(
            f"the server does not answer as it should: {problem}",
            hint="see whether it still runs, and what its log says",
            where=str(self),
        )

    def _connection(self) -> http.client.HTTPConnection:
        if self.secure:
            context = ssl.create_default_context()
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=self.seconds, context=context
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=self.seconds)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        return headers


class Reply:
    """An answer that is being read; `hang_up` may come from another thread."""

    def __init__(self, address: Address, connection: http.client.HTTPConnection) -> None:
        self._address, self._connection = address, connection
        self._socket: socket.socket = connection.sock
        self._response = http.client.HTTPResponse(self._socket)

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Read no more."""
        self._response.close()
        self._connection.close()

    def begin(self) -> None:
        """Read the head of the answer.

        Raises:
            RequestError: if the server refuses the request.
            EngineError: if it failed, or sends us elsewhere.
        """
        self._response = self._connection.getresponse()
        status = self._response.status
        if status == http.client.OK:
            return
        message = self._complaint()
        if 400 <= status < 500 and status not in (401, 403, 404):
            raise RequestError(message, hint="change the request", where=str(self._address))
        raise self._address.unreachable(f"{status} {message}")

    def json(self) -> Any:
        """Read all of it as JSON.

        Raises:
            EngineError: if it is none.
        """
        try:
            body = self._response.read(MOST_BYTES)
            return orjson.loads(body)
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise self._address.unreachable(problem) from None

    def events(self) -> Iterator[Any]:
        """Yield the JSON of each server-sent event until the last.

        Raises:
            RequestError: if the server says that it failed.
            EngineError: if the answer breaks off.
        """
        try:
            while line := self._response.readline(LONGEST_LINE):
                name, _, value = line.partition(b":")
                if name == b"error":
                    raise self._address.unreachable(value.decode("utf-8", "replace").strip())
                if name != b"data":
                    continue
                if value.strip() == DONE:
                    return
                event = orjson.loads(value)
                if isinstance(event, dict) and event.get("error"):
                    raise self._address.unreachable(_message(event))
                yield event
        except (OSError, ValueError, http.client.HTTPException) as problem:
            raise self._address.unreachable(problem) from None

    def hang_up(self) -> None:
        """Let the server know that nobody listens any more; whoever reads comes to the end."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _complaint(self) -> str:
        try:
            return _message(orjson.loads(self._response.read(LONGEST_LINE)))
        except (OSError, ValueError, http.client.HTTPException):
            return self._response.reason


def _message(body: Any) -> str:
    """Find the message in the error of a server like OpenAI's."""
    error = body.get("error", body) if isinstance(body, dict) else body
    return str(error.get("message", error) if isinstance(error, dict) else error)[:2000]
