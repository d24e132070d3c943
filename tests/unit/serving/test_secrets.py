"""What nobody may be told stays where it is: headers, addresses, prompts, the environment."""

from __future__ import annotations

from typing import Any

import pytest  # noqa: TC002  the fixture is read at run time

from tests.unit.serving.running import Running, raw
from tests.unit.serving.watching import SECRET, SECRETS
from tunesmith.settings import environment_offline

CHAT = "/v1/chat/completions"
CANARY = "request-canary-77a1"
HEADERS = {"Authorization": f"Bearer {CANARY}", "Cookie": CANARY, "X-Forwarded-For": CANARY}


def odd_requests() -> list[tuple[str, str, Any]]:
    """Requests that hold a secret, and each of which is refused in a way of its own."""
    words = [{"role": "user", "content": CANARY}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"const": CANARY}}}
    return [
        ("GET", f"/generate?prompt={CANARY}&max_tokens=0", None),
        ("GET", f"/v1/models?key={CANARY}", None),
        ("GET", f"/nowhere?token={CANARY}", None),
        ("POST", CHAT, {"messages": words, "max_tokens": 2}),
        ("POST", CHAT, {"messages": words, "max_tokens": 2, "stream": True}),
        ("POST", CHAT, {"messages": words, "max_tokens": 0}),
        ("POST", CHAT, {"messages": words, "logit_bias": {"1": 900}}),
        ("POST", CHAT, {"messages": words * 3000}),
        ("POST", CHAT, {"messages": words, "max_tokens": 2, "tools": [tool]}),
        ("POST", CHAT, {"messages": [{"role": "tool", "content": CANARY}], "max_tokens": 1}),
        ("POST", "/v1/responses", {"input": CANARY, "max_output_tokens": 2}),
        ("POST", "/v1/completions", {"prompt": CANARY, "max_tokens": 2}),
        ("POST", "/v1/completions", {"prompt": CANARY * 20_000}),
        ("POST", "/v1/embeddings", {"input": [CANARY, ""]}),
        ("POST", "/tokenize", {"prompt": CANARY, "messages": words}),
        ("POST", "/score", {"messages": words}),
    ]


def test_no_secret_of_a_request_or_of_the_environment_is_told(server: Running) -> None:
    said = b""
    for method, path, body in odd_requests():
        if body is None:
            reply = server.ask(method, path, headers=HEADERS)
        else:
            reply = server.post(path, body, **HEADERS)
        assert reply.status < 500, (path, reply.body)
        said += reply.body
    said += raw(server, f"GET /\xff{CANARY} HTTP/9.9\r\n{CANARY}\r\n\r\n".encode("latin-1"))
    for path in ("/metrics", "/version", "/v1/models", "/openapi.json", "/docs"):
        said += server.get(path, **HEADERS).body
    log = server.log.read_bytes()
    assert log, "requests are logged"
    for secret in (CANARY, SECRET):
        assert secret.encode() not in said
        assert secret.encode() not in log


def test_engines_in_processes_of_their_own_get_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = {"TOKENIZERS_PARALLELISM": "true", "KEYBOARD": "de", "MONKEY": "1"}
    for name, value in {**SECRETS, **harmless, "AWS_SECRET_ACCESS_KEY": SECRET}.items():
        monkeypatch.setenv(name, value)
    given = environment_offline(VLLM_API_KEY="ours")
    assert [name for name, value in given.items() if value == SECRET] == ["OTHER"]
    assert given.items() >= {**harmless, "VLLM_API_KEY": "ours", "HF_HUB_OFFLINE": "1"}.items()
