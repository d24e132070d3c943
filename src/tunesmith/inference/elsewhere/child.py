"""A server in a process of its own, which ends with this one."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, TypeVar

from tunesmith.errors import EngineError
from tunesmith.settings import LOOPBACK

WATCHED = Path(__file__).with_name("watched.py")
SECONDS_TO_END = 10
LINES_KEPT, LINES_TOLD = 200, 8
Found = TypeVar("Found")


class Child:
    """A server that we started.

    Args:
        python: what it runs in, an environment of its own perhaps.
        command: a module or a file, and its arguments.
        serves: what its errors are about; the command's name if empty.
        told: one line for it that nobody else may read, such as a key.

    Raises:
        EngineError: if that Python cannot be started.
    """

    def __init__(
        self,
        python: Path,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        serves: str = "",
        told: str = "",
    ) -> None:
        self._serves = serves or command[0]
        self._lines: deque[str] = deque(maxlen=LINES_KEPT)
        try:
            self._process = subprocess.Popen(  # noqa: S603  no shell, and what a person named
                [str(python), "-I", str(WATCHED), *command],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                text=True,
                errors="replace",
            )
        except OSError as problem:
            raise EngineError(
                f"the engine cannot be started: {problem}",
                hint="name the python of an environment that has it",
                where=str(python),
            ) from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self._process.stdout,), daemon=True
        )
        self._reader.start()
        with suppress(BrokenPipeError):  # `wait_until` tells why it ended
            self._process.stdin.write(f"{told}\n")
            self._process.stdin.flush()

    @property
    def pid(self) -> int:
        """Its process, the leader of a group of its own."""
        return self._process.pid

    @property
    def lines(self) -> Sequence[str]:
        """What it said last."""
        return tuple(self._lines)

    def wait_until(self, ready: Callable[[], Found | None], seconds: float) -> Found:
        """Wait until something of it is found, and end it if it is not in time.

        Raises:
            EngineError: with what it said last.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if (found := ready()) is not None:
                return found
            if self._process.poll() is not None:
                self._reader.join(1)
                raise self._failed(f"ended with code {self._process.returncode}")
            time.sleep(0.05)
        raise self._failed(f"was not ready after {seconds:.0f} seconds")

    def check(self) -> None:
        """Refuse if it has ended; what it said is not for everybody.

        Raises:
            EngineError: with its code.
        """
        if self._process.poll() is not None:
            raise EngineError(
                f"the engine ended with code {self._process.returncode}",
                hint="start the server again",
                where=self._serves,
            )

    def close(self) -> None:
        """End it and all it started."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(SECONDS_TO_END)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._reader.join(1)

    def _failed(self, how: str) -> EngineError:
        said = [line for line in self._lines if line.strip()][-LINES_TOLD:]
        self.close()
        return EngineError(
            f"the engine {how}" + (", after it said:\n" + "\n".join(said) if said else ""),
            hint="mend what it says, or choose another engine with --engine",
            where=self._serves,
        )

    def _read(self, output: IO[str]) -> None:
        with output:
            for line in output:
                self._lines.append(line.rstrip("\n"))


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as listener:
        listener.bind((LOOPBACK, 0))
        return int(listener.getsockname()[1])
