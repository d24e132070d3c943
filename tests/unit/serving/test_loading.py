"""An address answers before its model does: that it lives, and that others are to come again."""

from __future__ import annotations

import io
import json
import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from tests.unit.serving import inside, running
from tests.unit.serving.running import Client, wait_for
from tunesmith.serving import serve as module
from tunesmith.serving.access import Access, Key, digest_of
from tunesmith.serving.app import build_waiting_app
from tunesmith.serving.guard import Guard
from tunesmith.serving.loading import Loading
from tunesmith.serving.request_log import QUIET, RequestLog
from tunesmith.serving.serve import Address, Doors, Ready, serve
from tunesmith.serving.server import build_server

CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
KEY = "ts-early"


@pytest.fixture(scope="module")
def early() -> Iterator[Client]:
    """A server with a key whose model never comes."""
    keys = (Key("all", digest_of(KEY), ("admin",)),)
    guard, nobody = Guard(Access(lambda: keys), loopback=True), Loading()
    app = build_waiting_app(guard, RequestLog(to=io.StringIO()))
    with closing(nobody), inside.hosting(app, nobody) as client:
        yield client


def test_it_lives_and_says_why_it_is_not_ready(early: Client) -> None:
    assert early.get("/health").json == {"status": "ok"}
    reply = early.get("/ready")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.error == {
        "message": "the model is being loaded",
        "where": "",
        "hint": "ask again in a few seconds",
        "type": "server_error",
        "param": None,
        "code": "server_loading",
    }


@pytest.mark.parametrize(
    "path", [CHAT, "/v1/embeddings", "/v1/load_lora_adapter", "/score", "/nothing"]
)
def test_whoever_may_ask_is_told_to_come_again(early: Client, path: str) -> None:
    reply = early.post(path, BODY, Authorization=f"Bearer {KEY}")
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert reply.error["code"] == "server_loading"
    assert reply.headers["x-request-id"]


def test_what_is_refused_early_is_logged_by_the_route_it_asks_for(served_model: Path) -> None:
    lines, keys = io.StringIO(), (Key("all", digest_of(KEY), ("admin",)),)
    guard, nobody = Guard(Access(lambda: keys), loopback=True), Loading()
    with (
        closing(nobody),
        inside.hosting(build_waiting_app(guard, RequestLog(to=lines)), nobody) as client,
        inside.service(served_model) as service,
        inside.listening(service) as late,
    ):
        declared = [path for path in late.get("/openapi.json").json["paths"] if path not in QUIET]
        for path in declared:
            client.get(path.replace("{name}", "Org/x"), Authorization=f"Bearer {KEY}")
        client.get("/nothing", Authorization=f"Bearer {KEY}")
        client.get("/v1/models/a")
    told = [json.loads(line) for line in lines.getvalue().splitlines()]
    assert len(declared) > 10
    routes = [path.replace("{name}", "{name:path}") for path in declared]
    assert [line["route"] for line in told] == [*routes, "other", "/v1/models/{name:path}"]
    assert [line["status"] for line in told] == [*[503] * (len(routes) + 1), 401]


def test_others_are_told_no_more_than_later(early: Client) -> None:
    assert early.post(CHAT, BODY).status == 401
    assert early.get("/health", Host="evil.example").status == 400
    assert early.get("/health", Origin="https://evil.example").status == 403


def test_the_model_answers_at_the_same_address_once_it_is_loaded(
    served_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    come, told, open_answers = threading.Event(), list[Ready](), module.open_answers
    port = free_port()

    def slowly(*given: Any) -> Any:
        assert come.wait(60)
        return open_answers(*given)

    monkeypatch.setattr(module, "open_answers", slowly)
    monkeypatch.setattr("tunesmith.serving.server.Answered.wait", lambda _: over.wait(60))
    over = threading.Event()
    serving = threading.Thread(
        target=serve,
        args=(str(served_model), None, Doors(Address(port=port))),
        kwargs={"ready": told.append},
    )
    serving.start()
    client = Client(f"http://127.0.0.1:{port}", "tiny-chat")
    try:
        wait_for(lambda: is_open(port))
        assert client.get("/ready").status == 503
        assert client.post(CHAT, BODY).status == 503
        come.set()
        wait_for(lambda: client.get("/ready").status == 200)
        assert client.post(CHAT, BODY).status == 200
        assert told[0].address == client.address
    finally:
        come.set()
        over.set()
        serving.join(60)


@pytest.mark.proof
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)])
def test_a_signal_ends_it_at_once_while_it_loads(
    served_model: Path, tmp_path: Path, sent: signal.Signals, code: int
) -> None:
    port = free_port()
    process = running.start(served_model, tmp_path / "log.txt", "--port", str(port))
    try:
        wait_for(lambda: is_open(port), 60)
        process.send_signal(sent)
        start = time.monotonic()
        said, _ = process.communicate(timeout=30)
        assert time.monotonic() - start < 3
        assert (process.returncode, said) == (code, "")
        assert "Traceback" not in (tmp_path / "log.txt").read_text("utf-8")
    finally:
        process.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_others_log_to_stays_open() -> None:
    class Theirs(logging.Handler):
        is_closed = False

        def close(self) -> None:
            self.is_closed = True
            super().close()

    theirs = Theirs()
    logging.getLogger("theirs").addHandler(theirs)
    try:
        build_server(FastAPI(), Loading())
        assert not theirs.is_closed
    finally:
        logging.getLogger("theirs").removeHandler(theirs)
