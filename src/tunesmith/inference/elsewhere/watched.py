"""Run a module or a file, and end with all it started once the other end of stdin is closed.

A program of its own, without imports of ours: it runs in whatever environment an engine has. The
system closes stdin when the process that holds its other end dies, however it dies.
"""

import os
import runpy
import signal
import sys
import threading
import time

SECONDS_TO_END = 5


def _watch() -> None:
    while os.read(0, 4096):
        pass
    os.killpg(0, signal.SIGTERM)
    time.sleep(SECONDS_TO_END)
    os.killpg(0, signal.SIGKILL)


def _first_line() -> str:
    """Read byte by byte, so that nothing behind the line is taken from the watch."""
    line = bytearray()
    while (byte := os.read(0, 1)) not in (b"", b"\n"):
        line += byte
    return line.decode()


if __name__ == "__main__":
    told = _first_line()
    threading.Thread(target=_watch, daemon=True).start()
    sys.argv = sys.argv[1:]
    if sys.argv[0].endswith(".py"):
        runpy.run_path(sys.argv[0], {"TOLD": told}, "__main__")
    else:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
