"""Keys by name: made once, shown once, kept as hashes, taken back at any time."""

from __future__ import annotations

import os
import re
import secrets
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import orjson
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tunesmith.errors import RequestError
from tunesmith.logs import logger
from tunesmith.serving.access import SCOPES, Key, Scope, digest_of

log = logger(__name__)
PREFIX = "ts-"
NAME = re.compile(r"[\w.-]{1,64}")
FILE = "keys.json"
SECONDS_TO_WAIT = 10


class KeyEntry(BaseModel):
    """A key as its file holds it."""

    model_config = ConfigDict(extra="forbid")

    name: str
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    scopes: tuple[Scope, ...]
    created: str


class KeyFile(BaseModel):
    """All keys of a person."""

    model_config = ConfigDict(extra="forbid")

    keys: list[KeyEntry] = []


class KeyStore:
    """The keys of a settings folder; what others change there is seen at the next look."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._keys: tuple[Key, ...] = ()

    def keys(self) -> Sequence[Key]:
        """Return the keys that are good now.

        A file that cannot be read any longer lets nobody in.
        """
        with self._lock:
            if (stamp := self._stamp()) != self._seen:
                self._seen = stamp
                try:
                    self._keys = self.read()
                except RequestError as problem:
                    log.error("%s: %s", problem.where, problem.message)
                    self._keys = ()
            return self._keys

    def read(self) -> tuple[Key, ...]:
        """Read the keys.

        Raises:
            RequestError: if the file cannot be read.
        """
        return tuple(Key(**dict(entry)) for entry in self._read().keys)

    def create(self, name: str, scopes: Sequence[str]) -> str:
        """Make a key and return it; only its hash is kept.

        Raises:
            RequestError: if the name is taken or strange, a scope is none, or the file cannot be
                written.
        """
        if not NAME.fullmatch(name):
            raise RequestError(
                f"a key cannot be called {name!r}",
                hint="take letters, digits, `-`, `_` and `.`",
                where="NAME",
            )
        found = {scope: scope in scopes for scope in SCOPES}
        if odd := [scope for scope in scopes if scope not in found]:
            raise RequestError(
                f"there is no scope {odd[0]!r}",
                hint=f"there are {', '.join(SCOPES)}",
                where="--scope",
            )
        key = PREFIX + secrets.token_urlsafe(32)
        chosen = tuple(scope for scope, wanted in found.items() if wanted)
        day = datetime.now(UTC).date().isoformat()
        entry = KeyEntry(name=name, digest=digest_of(key), scopes=chosen, created=day)
        with self._changing():
            file = self._read()
            if name in (known.name for known in file.keys):
                raise RequestError(
                    f"there is a key {name} already",
                    hint=f"take another name, or `tunesmith keys revoke {name}` first",
                    where=str(self.path),
                )
            self._write(KeyFile(keys=[*file.keys, entry]))
        return key

    def revoke(self, name: str) -> None:
        """Let a key open nothing any longer; running servers see it at once.

        Raises:
            RequestError: if there is none of that name.
        """
        with self._changing():
            file = self._read()
            left = [entry for entry in file.keys if entry.name != name]
            if len(left) == len(file.keys):
                known = ", ".join(entry.name for entry in file.keys) or "none"
                raise RequestError(
                    f"there is no key {name}", hint=f"there are: {known}", where=str(self.path)
                )
            self._write(KeyFile(keys=left))

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """Keep others from changing the keys meanwhile."""
        lock = FileLock(self.path.with_name(f".{FILE}.lock"), timeout=SECONDS_TO_WAIT, mode=0o600)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            lock.acquire()
        except Timeout:
            raise self._unusable("the keys are being changed by another process") from None
        except OSError as problem:
            raise self._unusable(f"the keys cannot be changed: {problem.strerror}") from None
        try:
            yield
        finally:
            lock.release()

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            stat = self.path.stat()
        except OSError:
            return None
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def _read(self) -> KeyFile:
        try:
            return KeyFile.model_validate(orjson.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return KeyFile()
        except (OSError, ValueError, ValidationError) as problem:
            raise self._unusable(f"the keys cannot be read: {type(problem).__name__}") from None

    def _write(self, file: KeyFile) -> None:
        """Write beside it, for the owner alone, and put it in its place."""
        partial = self.path.with_name(f".{FILE}.{os.getpid()}.partial")
        content = orjson.dumps(file.model_dump(), option=orjson.OPT_INDENT_2)
        try:
            partial.unlink(missing_ok=True)
            with os.fdopen(
                os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb"
            ) as f:
                f.write(content)
                f.flush()
                os.fsync(f.fileno())
            partial.replace(self.path)
        except OSError as problem:
            partial.unlink(missing_ok=True)
            raise self._unusable(f"the keys cannot be written: {problem.strerror}") from None

    def _unusable(self, message: str) -> RequestError:
        hint = "mend or remove the file, or choose a folder with TUNESMITH_CONFIG"
        return RequestError(message, hint=hint, where=str(self.path))
