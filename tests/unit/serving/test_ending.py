"""A server that is told to stop lets answers end, takes no further ones, and ends with code 0."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.unit.serving import inside
from tests.unit.serving.running import Running, serving, wait_for
from tunesmith.serving.request_log import RequestLog

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]
LONG = {"messages": MESSAGES, "max_tokens": 19_000}


def test_sigterm_lets_an_answer_end_refuses_others_and_ends_with_code_0(
    served_model: Path, tmp_path: Path
) -> None:
    with serving(served_model, tmp_path / "log.txt") as own:
        asked = {"messages": MESSAGES, "max_tokens": 1500, "stream": True}
        with own.writing(CHAT, asked) as connection:
            answer = connection.getresponse()
            own.process.send_signal(signal.SIGTERM)
            wait_for(lambda: own.get("/ready").status == 503)
            refused = own.post(CHAT, asked)
            assert own.get("/health").status == 200
            rest = answer.read()
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        assert refused.error["code"] == "server_stopping"
        assert rest.endswith(b"data: [DONE]\n\n")
        assert b'"finish_reason":"length"' in rest
        assert own.process.wait(60) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text("utf-8").splitlines()]
    assert {line["status"] for line in lines if line["route"] == CHAT} == {200, 503}


@pytest.mark.proof
@pytest.mark.parametrize("streaming", [False, True])
def test_sigterm_waits_ten_seconds_for_an_answer_and_no_longer(
    served_model: Path, tmp_path: Path, streaming: bool
) -> None:
    with serving(served_model, tmp_path / "log.txt", "--max-active", "2") as own:
        with own.writing(CHAT, {**LONG, "n": 2, "stream": streaming}) as connection:
            own.process.send_signal(signal.SIGTERM)
            start = time.monotonic()
            said = connection.getresponse().read()
            assert own.process.wait(30) == 0
        assert 8 < time.monotonic() - start < 20
        assert b"the server stops" in said


def test_a_line_tells_of_each_request_and_not_what_was_asked(
    served_model: Path, tmp_path: Path
) -> None:
    body: dict[str, Any] = {"messages": MESSAGES, "max_tokens": 3}
    for prompts in (False, True):
        path = tmp_path / f"{prompts}.txt"
        with inside.service(served_model) as service, path.open("w", encoding="utf-8") as file:
            log = RequestLog(prompts=prompts, to=file)
            with inside.listening(service, log=log) as client:
                reply = client.post(CHAT, body, **{"X-Request-Id": "mine-1"})
                client.get("/health")
                other = client.post(CHAT, {"messages": 5})
        line, second = map(json.loads, path.read_text("utf-8").splitlines())
        assert reply.headers["x-request-id"] == line["request"] == "mine-1"
        assert other.headers["x-request-id"] == second["request"]
        assert len(second["request"]) == 32
        assert (line["route"], line["status"], line["model"]) == (CHAT, 200, "tiny")
        assert (line["prompt_tokens"], line["written_tokens"]) == (
            reply.json["usage"]["prompt_tokens"],
            3,
        )
        assert 0 <= line["first_token"] <= line["seconds"]
        assert second["status"] == 422
        assert ("prompt" in line) == prompts
        assert ("what is it" in path.read_text("utf-8")) == prompts


def test_figures_count_what_was_asked(server: Running) -> None:
    def figure(name: str) -> float:
        lines = server.get("/metrics").body.decode().splitlines()
        return next((float(one.split()[-1]) for one in lines if one.startswith(name)), 0.0)

    answered = f'tunesmith_requests_total{{route="{CHAT}",status="200"}}'
    written = 'tunesmith_written_tokens_total{model="tiny-chat"}'
    before, tokens = figure(answered), figure(written)
    first = figure("tunesmith_first_token_seconds_count")
    server.post(CHAT, {"messages": MESSAGES, "max_tokens": 7})
    assert figure(answered) == before + 1
    assert figure(written) == tokens + 7
    assert figure("tunesmith_first_token_seconds_count") == first + 1
    server.get("/no/such/canary")
    assert "canary" not in server.get("/metrics").body.decode()
    assert server.get("/metrics").headers["content-type"].startswith("text/plain")


def test_the_server_says_what_it_is(server: Running) -> None:
    assert server.get("/ready").json == {"status": "ready"}
    assert set(server.get("/version").json) == {"version"}
    assert server.get("/health").headers["x-content-type-options"] == "nosniff"


@pytest.mark.proof
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.02, 0.2, 0.4])
def test_signals_that_come_while_it_ends_are_no_fault(
    served_model: Path, tmp_path: Path, sent: signal.Signals, seconds: float
) -> None:
    with serving(served_model, tmp_path / "log.txt") as own:
        while own.process.poll() is None:
            own.process.send_signal(sent)
            time.sleep(seconds)
        assert own.process.returncode == 0
    assert "Traceback" not in (tmp_path / "log.txt").read_text("utf-8")
