"""Turns: in a crowd few requests are read at a time, and whoever asks for the health goes first."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from uvicorn.server import ServerState

from tunesmith.serving.limits import READ_AT_ONCE, REFUSED_AT_ONCE

URGENT = (b"GET /health ", b"HEAD /health ")


class Turns:
    """Lets a few requests be read each time the event loop goes round; others wait in order.

    In between the loop looks at all connections, so that one request never waits for a crowd's.

    Args:
        refuses: tells whether requests are refused at this moment.
    """

    def __init__(self, refuses: Callable[[], bool]) -> None:
        self._waiting: deque[Callable[[], None]] = deque()
        self._refuses = refuses
        self._left, self._called = self._at_once(), False

    def may_go(self, data: bytes) -> bool:
        """Whether a request is read at once."""
        if data.startswith(URGENT):
            return True
        if self._left == 0 or self._waiting:
            return False
        self._left -= 1
        self._call()
        return True

    def wait(self, read: Callable[[], None]) -> None:
        """Have a request read when it is its turn."""
        self._waiting.append(read)
        self._call()

    def _call(self) -> None:
        if not self._called:
            self._called = True
            asyncio.get_running_loop().call_soon(self._go_round)

    def _go_round(self) -> None:
        self._called, self._left = False, self._at_once()
        while self._waiting and self._left:
            self._left -= 1
            self._waiting.popleft()()
        if self._waiting:
            self._call()

    def _at_once(self) -> int:
        return REFUSED_AT_ONCE if self._refuses() else READ_AT_ONCE


class Shared(ServerState):
    """What all connections of a server share."""

    def __init__(self, refuses: Callable[[], bool]) -> None:
        super().__init__()
        self.turns = Turns(refuses)
