"""Run a command in a network namespace that holds loopback only, and note every connection."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

WATCH = """
import os, sys
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        with open(os.environ["CONNECTIONS"], "a") as file:
            file.write(repr(arguments[1:] if event == "socket.connect" else arguments) + "\\n")
sys.addaudithook(watch)
"""
RAISE_LOOPBACK = """
import fcntl, os, socket, struct, sys
with socket.socket() as probe:
    fcntl.ioctl(probe, 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@dataclass(frozen=True)
class Offline:
    """How a command went without a network.

    Attributes:
        connections: every address that any of its processes asked for.
    """

    code: int
    out: str
    connections: list[str]

    def outside(self) -> list[str]:
        """List the addresses that are not this machine."""
        own = ("127.0.0.1", "localhost", "'::1'")
        return [line for line in self.connections if not any(name in line for name in own)]


def can_cut_off() -> bool:
    """Whether this system lets us make a network namespace."""
    made = subprocess.run(["unshare", "-rn", "true"], capture_output=True)
    return made.returncode == 0


def run_offline(folder: Path, *arguments: str) -> Offline:
    """Run Python with some arguments and nothing but loopback."""
    watcher = folder / "watch"
    watcher.mkdir(exist_ok=True)
    (watcher / "sitecustomize.py").write_text(WATCH, "utf-8")
    noted = folder / "connections"
    noted.touch()
    path = os.pathsep.join([str(watcher), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": path, "CONNECTIONS": str(noted)}
    command = ["unshare", "-rn", sys.executable, "-c", RAISE_LOOPBACK, *arguments]
    result = subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    seen = noted.read_text("utf-8").splitlines()
    return Offline(result.returncode, result.stdout + result.stderr, seen)
