"""One server, whatever engine writes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.command import Command
from tests.unit.inference.elsewhere.test_llama_cpp import write_adapter
from tests.unit.serving.running import Running, serving, wait_for
from tests.unit.serving.watching import SECRET, SECRETS
from tunesmith.export.gguf.write import write_gguf
from tunesmith.inference.own_model import OwnModel
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import load_chat_model

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "what is it?"}]


@pytest.fixture(scope="module")
def file(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "small.gguf"
    write_gguf(load_chat_model(served_model, precision="fp32", device="cpu"), path, "f32")
    return path


@pytest.fixture(scope="module")
def near(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    log = tmp_path_factory.mktemp("log") / "server.txt"
    with serving(file, log, "--precision", "fp32", "--max-active", "2") as running:
        yield running


def answer(server: Running, **options: Any) -> dict[str, Any]:
    reply = server.post(CHAT, {"messages": MESSAGES, "max_tokens": 24, "temperature": 0, **options})
    assert reply.status == 200, reply.body
    found: dict[str, Any] = reply.json
    return found


def test_a_gguf_and_a_server_that_passes_on_say_what_the_folder_says(
    near: Running, served_model: Path, tmp_path: Path
) -> None:
    own = OwnModel(load_chat_model(served_model, precision="fp32", device="cpu"), 1)
    (speech,) = own.models().values()
    prompt = speech.render(MESSAGES, (), {})
    (expected,) = own.write([prompt], Sampling(max_tokens=24))
    said = answer(near)
    assert said["model"] == "small"
    assert said["choices"][0]["message"]["content"] == expected.text
    usage = {"prompt_tokens": len(prompt), "completion_tokens": 24}
    assert said["usage"].items() >= usage.items()
    options = ("--engine", "remote", "--remote-url", f"{near.address}/v1")
    with serving(Path("small"), tmp_path / "far.txt", *options) as far:
        passed_on = answer(far)
    assert passed_on["choices"][0]["message"]["content"] == expected.text
    assert passed_on["usage"].items() >= usage.items()


def test_what_the_engine_means_otherwise_is_refused_by_name(near: Running) -> None:
    reply = near.post(CHAT, {"messages": MESSAGES, "presence_penalty": 0.5})
    assert reply.status == 400
    assert reply.error["hint"]
    reply = near.post("/v1/embeddings", {"input": "a"})
    assert reply.status == 400


def test_an_engine_that_died_is_no_fault_of_the_client_and_tells_no_secret(
    file: Path, tmp_path: Path
) -> None:
    log, canary = tmp_path / "log.txt", "prompt-canary-31c8"
    with serving(file, log, environment=SECRETS) as server:
        answer(server, messages=[{"role": "user", "content": canary}])
        children = psutil.Process(server.process.pid).children()
        (engine,) = [each for each in children if "watched.py" in " ".join(each.cmdline())]
        os.kill(engine.pid, signal.SIGKILL)
        wait_for(lambda: server.post(CHAT, {"messages": MESSAGES}).status == 502)
        reply = server.post(CHAT, {"messages": [{"role": "user", "content": canary}]})
        assert reply.error["type"] == "server_error"
        said = log.read_text("utf-8")
        assert "said last" in said, "what the engine wrote is in the log"
        for secret in (canary, SECRET):
            assert secret not in said + reply.body.decode()


@pytest.mark.parametrize(
    ("options", "where"),
    [
        (("--engine", "own"), "--engine"),
        (("--engine", "fast"), "--engine"),
        (("--precision", "bf16"), "--precision"),
        (("--remote-url", "http://127.0.0.1:1/v1"), "--remote-url"),
        (("--engine", "remote"), "--remote-url"),
        (("--engine", "remote", "--remote-url", "file:///etc/passwd"), "file:///etc/passwd"),
    ],
)
def test_options_that_mean_nothing_are_refused(
    command: Command, file: Path, options: tuple[str, ...], where: str
) -> None:
    outcome = command("serve", file, "--port", "0", *options)
    assert outcome.code == 2
    assert f"where: {where}" in outcome.err


@pytest.mark.parametrize("called", [("--served-model-name", "x"), ()])
def test_two_models_of_one_name_are_refused(
    command: Command, file: Path, tmp_path: Path, called: tuple[str, ...]
) -> None:
    write_adapter(tmp_path / "a.gguf")
    name = called[1] if called else "small"
    adapter = f"{name}={tmp_path / 'a.gguf'}"
    outcome = command("serve", file, "--port", "0", *called, "--adapter", adapter)
    assert (outcome.code, f"called {name}" in outcome.err) == (2, True)


def test_a_client_is_printed_under_the_name_it_will_have(command: Command, file: Path) -> None:
    near = command("serve", file, "--print-client", "python")
    assert (near.code, "small" in near.out) == (0, True)
    options = ("--engine", "remote", "--remote-url", "http://127.0.0.1:1/v1")
    assert "far" in command("serve", "far", *options, "--print-client", "curl").out
