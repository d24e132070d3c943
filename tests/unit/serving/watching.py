"""What a server opens and whom it asks, noted by Python inside of it, or by strace from outside."""

from __future__ import annotations

import ast
import os
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tunesmith.settings import read_settings

HOOK = """
import os, sys
noted = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
def watch(event, arguments):
    if event in ("open", "os.listdir", "os.scandir"):
        os.write(noted, f"opened {str(arguments[0])!a}\\n".encode())
    elif event in ("socket.connect", "socket.sendto"):
        os.write(noted, f"asked {str(arguments[1])!a}\\n".encode())
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        os.write(noted, f"asked {str(arguments[0])!a}\\n".encode())
sys.addaudithook(watch)
"""
OWN = ("/proc", "/sys", "/dev", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/etc/localtime")
"""What belongs to the system and tells no secret of this machine's people."""
SECRET = "env-canary-5e1f"
SECRETS = dict.fromkeys(("HF_TOKEN", "OPENAI_API_KEY", "DB_PASSWORD", "OTHER"), SECRET)
"""What the environment of a server holds and nobody may be told."""
OPENED = re.compile(r'\bopen(?:at2?)?\((?:AT_FDCWD, )?"((?:[^"\\]|\\.)*)"')
ASKED = re.compile(r"\b(?:connect|sendto|sendmsg)\(.*sa_family=AF_(INET6?.*?)\}")


def traced(to: Path) -> list[str]:
    """Return what has strace write down the files that a command opens and whom it asks."""
    calls = "trace=open,openat,openat2,connect,sendto,sendmsg"
    return ["strace", "--seccomp-bpf", "-f", "-qq", "-s", "4096", "-e", calls, "-o", str(to)]


@dataclass(frozen=True)
class Watch:
    """Notes of one server."""

    folder: Path

    @property
    def notes(self) -> Path:
        """Where they are kept."""
        return self.folder / "notes.txt"

    def environment(self) -> dict[str, str]:
        """Return what lets a server note what it does."""
        (self.folder / "sitecustomize.py").write_text(HOOK, "utf-8")
        path = os.pathsep.join(filter(None, [str(self.folder), os.environ.get("PYTHONPATH", "")]))
        return {"PYTHONPATH": path, "WATCHED": str(self.notes)}

    def length(self) -> int:
        """Tell how much is noted by now."""
        return self.notes.stat().st_size

    def opened(self, since: int) -> list[Path]:
        """List the files and folders that were opened since."""
        return [Path(name) for name in self._noted("opened", since)]

    def asked(self, since: int) -> list[str]:
        """List the addresses and names that were asked since."""
        return [*self._noted("asked", since)]

    def _noted(self, kind: str, since: int) -> Iterator[str]:
        for line in self.notes.read_bytes()[since:].decode().splitlines():
            what, _, spelled = line.partition(" ")
            if what == kind:
                yield ast.literal_eval(spelled)


def strange(opened: Iterable[Path], *workspace: Path) -> list[Path]:
    """List what lies neither in a workspace, nor in Python, nor in our own code."""
    settings = read_settings()
    code = [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *sys.path]
    roots = [
        Path(root).resolve()
        for root in (*workspace, settings.runs, settings.cache, *settings.hub_caches, *code, *OWN)
        if str(root)
    ]
    return [
        path
        for path in opened
        if path.name == "environ" or not any(path.resolve().is_relative_to(one) for one in roots)
    ]
