"""Serve a model over HTTP until told to stop."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.errors import RequestError, require
from tunesmith.models.chat import Subject
from tunesmith.serving.access import USUAL, Access, Key, digest_of
from tunesmith.serving.answers import Answering, only_address, open_answers
from tunesmith.serving.guard import Guard, is_loopback, read_key
from tunesmith.serving.keys import KeyStore
from tunesmith.settings import read_settings

FILE_KEY = "api-key-file"


@dataclass(frozen=True)
class Address:
    """Where a server listens; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8000


@dataclass(frozen=True)
class Doors:
    """Who may come in.

    Attributes:
        key_file: holds a key that clients may send, besides those of the key store.
        is_open: ask for no key, though there are some; on this machine's own address only.
        log_prompts: write prompts and answers into the request log.
    """

    address: Address = field(default_factory=Address)
    key_file: Path | None = None
    is_open: bool = False
    log_prompts: bool = False


@dataclass(frozen=True)
class Ready:
    """What is served, and where.

    Attributes:
        asks_for_key: whether clients must send one.
        only: the one address that a model answers at that writes nothing; empty for others.
    """

    models: Sequence[str]
    address: str
    asks_for_key: bool
    only: str = ""


def serve(
    name: str | Subject,
    how: Answering | None = None,
    doors: Doors | None = None,
    *,
    ready: Callable[[Ready], None] = lambda _: None,
    ends: bool = False,
) -> None:
    """Serve a run, a checkpoint or a model folder over HTTP.

    The address answers at once: until the model is loaded, that it is not ready.

    Args:
        ready: called once requests are accepted.
        ends: whether the process ends with it: signals that come later are not heard.

    Raises:
        RequestError: if the address would be open to others without a key, or is taken.
        SystemExit: with code 0, when SIGTERM asks for the end before the model is loaded.
    """
    how, doors = how or Answering(), doors or Doors()
    for module in ("uvicorn", "fastapi", "fastapi_offline", "llguidance", "prometheus_client"):
        require(module, extra="serve")
    access = find_access(doors)
    from tunesmith.serving.app import build_app, build_waiting_app
    from tunesmith.serving.loading import Loading
    from tunesmith.serving.request_log import RequestLog
    from tunesmith.serving.server import Answered, handled_by, listen, shown

    host = doors.address.host
    guard, log = Guard(access, is_loopback(host)), RequestLog(prompts=doors.log_prompts)
    answered = Answered(build_waiting_app(guard, log), Loading())
    with (
        listen(host, doors.address.port) as listener,
        handled_by(answered.handle, ends=ends),
        answered.at(listener),
    ):
        answers = open_answers(name, how)
        try:
            answered.open(build_app(answers, guard, log), answers)
            gc.collect()
            gc.freeze()  # else collections look through all that was loaded while all others wait
            ready(
                Ready(
                    answers.names(),
                    shown(host, listener),
                    asks_for_key=access.keys is not None,
                    only=only_address(answers),
                )
            )
            answered.wait()
        finally:
            answers.close()


def find_access(doors: Doors) -> Access:
    """Find the keys that clients may send.

    Raises:
        RequestError: if the address would be open to others without a key.
    """
    loopback = is_loopback(doors.address.host)
    if doors.is_open and (not loopback or doors.key_file):
        where = "--api-key-file" if doors.key_file else "--host"
        raise RequestError(
            "--open asks for no key, so only programs of this machine may reach it",
            hint=f"leave out --open, or {where}",
            where="--open",
        )
    if doors.is_open:
        return Access()
    own = (Key(FILE_KEY, digest_of(read_key(doors.key_file)), USUAL),) if doors.key_file else ()
    store = KeyStore(read_settings().config)
    if own or store.keys():
        return Access(lambda: (*own, *store.keys()))
    if loopback:
        return Access()
    raise RequestError(
        f"at {doors.address.host} others could use the model without a key",
        hint="make one with `tunesmith keys create NAME`, name a file that holds one with "
        "--api-key-file, or leave --host out",
        where="--host",
    )
