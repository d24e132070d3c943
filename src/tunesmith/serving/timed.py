"""A few threads for work off the event loop that may not take long."""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Generic, TypeVar

Result = TypeVar("Result")
MOMENT = 0.1
"""Seconds after which work is slow."""


class TooSlow(BaseException):
    """Ends work whose time is over; no `except Exception` on its way keeps it."""


class TimedPool:
    """Do work in threads, each piece within its time.

    Args:
        threads: how many pieces are done at the same time.
        slow: how many more: after a moment, what comes next is done beside them.
    """

    def __init__(self, threads: int, name: str, *, slow: int = 0) -> None:
        self._threads = ThreadPoolExecutor(threads + slow, name)
        self._turns = _Turns(threads)

    async def run(self, work: Callable[[], Result], seconds: float) -> Result:
        """Do some work when it is its turn, and break it off when its time is over.

        Raises:
            TimeoutError: if it was broken off; at once, also where it can end only later.
        """
        await self._turns.take()
        with ExitStack() as turn:
            turn.callback(self._turns.give_back)
            moment = asyncio.get_running_loop().call_later(MOMENT, turn.close)
            turn.callback(moment.cancel)
            return await self._do(_Timed(work), seconds)

    async def _do(self, timed: _Timed[Result], seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        doing = loop.run_in_executor(self._threads, timed)
        while True:
            await asyncio.wait((doing,), timeout=timed.seconds_left(seconds))
            if doing.done():
                return doing.result()
            if timed.seconds_left(seconds) <= 0:
                timed.interrupt()
                doing.add_done_callback(lambda done: done.exception())  # nobody waits for it
                raise TimeoutError

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class _Turns:
    """So many turns, taken in order; asyncio's own semaphore serves one event loop alone."""

    def __init__(self, count: int) -> None:
        self._left = count
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def take(self) -> None:
        if self._left:
            self._left -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back()
            raise

    def give_back(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._left += 1


class _Timed(Generic[Result]):
    def __init__(self, work: Callable[[], Result]) -> None:
        self._work, self._lock = work, threading.Lock()
        self._begun: float | None = None
        self._thread: int | None = None
        self._interrupted = False

    def __call__(self) -> Result:
        try:
            with self._lock:
                self._begun, self._thread = time.monotonic(), threading.get_ident()
            result = self._work()
            self._end()
        except TooSlow:
            raise TimeoutError from None
        return result

    def _end(self) -> None:
        """Be out of reach; what was already thrown at the thread must not hit later work."""
        with self._lock:
            self._thread = None
        while self._interrupted:
            time.sleep(0.001)

    def seconds_left(self, seconds: float) -> float:
        return seconds if self._begun is None else self._begun + seconds - time.monotonic()

    def interrupt(self) -> None:
        with self._lock:
            if self._thread is not None:
                self._interrupted = True
                thrown = ctypes.py_object(TooSlow)
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread), thrown)
