"""A request to stop, by signal or by file, heard at the end of the current step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tunesmith.logs import logger

log = logger(__name__)
SIGNALS = [
    getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)
]


class StopRequest:
    """Remembers that somebody wants the run to end early."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self._asked = threading.Event()

    def is_asked(self) -> bool:
        """Whether a signal came or the stop file exists."""
        return self._asked.is_set() or self.file.exists()

    def ask(self, number: int, _frame: FrameType | None) -> None:
        """Handle a signal: finish the step, save, stop. A second Ctrl-C stops at once."""
        if self._asked.is_set() and number == signal.SIGINT:
            raise KeyboardInterrupt
        self._asked.set()
        log.warning("stop asked for (%s): finishing the step", signal.Signals(number).name)


@contextmanager
def hear_stop(file: Path) -> Iterator[StopRequest]:
    """Listen for signals while the block runs; outside the main thread only for the file."""
    request = StopRequest(file)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    before = {number: signal.signal(number, request.ask) for number in SIGNALS}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
