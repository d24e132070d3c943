"""Serve models over HTTP until told to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.errors import RequestError, require
from tunesmith.inference.engine import Engine
from tunesmith.inference.own_model import OwnModel
from tunesmith.models.chat import Subject, load_chat_model
from tunesmith.serving.access import USUAL, Access, Key, digest_of
from tunesmith.serving.guard import Guard, is_loopback, read_key
from tunesmith.serving.keys import KeyStore
from tunesmith.serving.limits import MAX_WAITING
from tunesmith.settings import read_settings

FILE_KEY = "api-key-file"


@dataclass(frozen=True)
class Address:
    """Where a server listens; port 0 takes a free one."""

    host: str = "127.0.0.1"
    port: int = 8000


@dataclass(frozen=True)
class Serving:
    """How models are served.

    Attributes:
        key_file: holds a key that clients may send, besides those of the key store.
        is_open: ask for no key, though there are some; on this machine's own address only.
        called: what clients call the main model; the last part of its name if empty.
        max_waiting: how many requests may wait for their turn.
        log_prompts: write prompts and answers into the request log.
    """

    address: Address = field(default_factory=Address)
    key_file: Path | None = None
    is_open: bool = False
    called: str = ""
    max_waiting: int = MAX_WAITING
    log_prompts: bool = False


@dataclass(frozen=True)
class Ready:
    """What is served, and where.

    Attributes:
        asks_for_key: whether clients must send one.
    """

    models: Sequence[str]
    address: str
    asks_for_key: bool


def serve(
    name: str | Subject,
    how: Serving | None = None,
    *,
    ready: Callable[[Ready], None] = lambda _: None,
) -> None:
    """Serve a run, a checkpoint or a model folder over HTTP.

    Args:
        ready: called once requests are accepted.

    Raises:
        RequestError: if the address would be open to others without a key, or is taken.
        SystemExit: with code 0, when SIGTERM asks for the end.
    """
    how = how or Serving()
    for module in ("uvicorn", "fastapi", "fastapi_offline", "prometheus_client"):
        require(module, extra="serve")
    access = find_access(how)
    from tunesmith.serving.app import build_app
    from tunesmith.serving.request_log import RequestLog
    from tunesmith.serving.server import ended_by_sigterm, listen, run_app, served_name, shown
    from tunesmith.serving.service import Service

    with listen(how.address.host, how.address.port) as listener, ended_by_sigterm():
        engine = open_engine(name)
        main = next(iter(engine.models()))
        service = Service(engine, how.called or served_name(main), max_waiting=how.max_waiting)
        guard = Guard(access, is_loopback(how.address.host))
        app = build_app(service, guard, RequestLog(prompts=how.log_prompts))
        names = [speaker.name for speaker in service.speakers()]
        told = Ready(names, shown(how.address.host, listener), access.keys is not None)
        try:
            run_app(app, service, listener, lambda: ready(told))
        finally:
            service.close()


def open_engine(name: str | Subject) -> Engine:
    """Load what answers."""
    return OwnModel(load_chat_model(name), rows=1)


def find_access(how: Serving) -> Access:
    """Find the keys that clients may send.

    Raises:
        RequestError: if the address would be open to others without a key.
    """
    loopback = is_loopback(how.address.host)
    if how.is_open and (not loopback or how.key_file):
        where = "--api-key-file" if how.key_file else "--host"
        raise RequestError(
            "--open asks for no key, so only programs of this machine may reach it",
            hint=f"leave out --open, or {where}",
            where="--open",
        )
    if how.is_open:
        return Access()
    own = (Key(FILE_KEY, digest_of(read_key(how.key_file)), USUAL),) if how.key_file else ()
    store = KeyStore(read_settings().config)
    if own or store.keys():
        return Access(lambda: (*own, *store.keys()))
    if loopback:
        return Access()
    raise RequestError(
        f"at {how.address.host} others could use the model without a key",
        hint="make one with `tunesmith keys create NAME`, name a file that holds one with "
        "--api-key-file, or leave --host out",
        where="--host",
    )
