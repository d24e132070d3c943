"""Rewards that a server on this machine returns."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.unit.methods.rewards.test_rules import CPU, sample
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.methods.rewards import build_rewards, check_rewards
from tunesmith.recipe.rewards import Endpoint


class Server(HTTPServer):
    """Remembers what it was asked, and answers by the path."""

    asked: Any = None

    def handle_error(self, *_: Any) -> None:
        """Let a client go that does not wait."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked = asked
        if self.path == "/slow":
            threading.Event().wait(0.5)
        self.send_response({"/broken": 500, "/away": 307}.get(self.path, 200))
        self.send_header("Location", "http://example.com/score")
        self.end_headers()
        scores = [len(text) for text in asked["messages"]]
        body = {"/words": "hello", "/few": {"scores": scores[1:]}, "/other": {"score": 1}}
        self.wfile.write(json.dumps(body.get(self.path, {"scores": scores})).encode())

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def score(server: Server, path: str, *, timeout: float = 5.0) -> list[float]:
    url = f"http://127.0.0.1:{server.server_port}{path}"
    rewards = build_rewards([Endpoint(url=url, timeout=timeout)], device=CPU)
    found: list[float] = rewards.score([sample("yes"), sample("no")])[:, 0].tolist()
    return found


def test_it_speaks_as_reward_servers_of_llamafactory_do(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody listens there
    assert score(server, "/score") == [19.0, 18.0]
    assert server.asked == {
        "model": "model",
        "messages": ["<q>what?<a>yes<end>", "<q>what?<a>no<end>"],
    }


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/broken", "answered 500"),
        ("/away", "answered 307"),
        ("/words", "did not answer {"),
        ("/other", "did not answer {"),
        ("/few", "one number for each of 2 answers"),
    ],
)
def test_what_is_no_score_is_told(server: Server, path: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        score(server, path)


def test_it_does_not_wait_for_ever(server: Server) -> None:
    with pytest.raises(TrainingError, match=r"within 0.1 s"):
        score(server, "/slow", timeout=0.1)


def test_a_server_that_is_not_there_is_told() -> None:
    rewards = build_rewards([Endpoint(url="http://localhost:9/score")], device=CPU)
    with pytest.raises(TrainingError, match="cannot be reached") as problem:
        rewards.score([sample("yes")])
    assert problem.value.where == "http://localhost:9/score"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/score", "example.com is not this machine"),
        ("http://10.0.0.1:8000", "not this machine"),
        ("http://localhost.example.com", "not this machine"),
        ("http://127.0.0.1@example.com/", "example.com is not this machine"),
        ("http://name:word@127.0.0.1:8000/", "without a name and a password"),
        ("http://[::1%25eth0]:8000/", "not this machine"),
        ("http://0.0.0.0:8000", "not this machine"),
        ("file:///etc/passwd", "is no address"),
        ("127.0.0.1:8000", "is no address"),
        ("http://[::1", "is no address"),
        ("http://localhost:port/", "is no address"),
    ],
)
def test_only_this_machine_is_asked(url: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        check_rewards([Endpoint(url=url)])


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/", "https://[::1]:1/x", "http://localhost/"])
def test_this_machine_has_several_names(url: str) -> None:
    check_rewards([Endpoint(url=url)])
