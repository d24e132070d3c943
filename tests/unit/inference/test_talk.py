"""A talk in the terminal survives whatever is typed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tunesmith.cli.talk import talk
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.session import ChatSession
from tunesmith.models.chat import load_chat_model

SAID = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
NOT_UTF8 = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")


@pytest.fixture
def session(tiny_model: Path) -> ChatSession:
    model = load_chat_model(tiny_model, precision="fp32", device="cpu")
    return ChatSession(model, Sampling(max_tokens=4), messages=list(SAID))


def typed(monkeypatch: pytest.MonkeyPatch, *lines: str | Exception) -> None:
    left: Iterator[str | Exception] = iter([*lines, EOFError()])

    def read(_: str) -> str:
        line = next(left)
        if isinstance(line, Exception):
            raise line
        return line

    monkeypatch.setattr("builtins.input", read)


@pytest.mark.parametrize(
    "line", [NOT_UTF8, "caf\udce9", "\ud800"], ids=["bytes", "escaped", "half"]
)
def test_a_line_that_is_not_utf_8_is_refused_and_the_talk_goes_on(
    session: ChatSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    line: str | Exception,
) -> None:
    typed(monkeypatch, line, "what is it?")
    talk([session])
    assert "not UTF-8" in capsys.readouterr().err
    assert [message["content"] for message in session.messages[::2]] == ["hi", "what is it?"]


@pytest.mark.parametrize("name", ["~nosuchuser/talk.jsonl", "x" * 300, "a\0b", "no/talk.jsonl"])
def test_a_name_that_cannot_be_saved_to_loses_nothing(
    session: ChatSession,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    name: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    typed(monkeypatch, f"/save {name}", "/save talk.jsonl")
    talk([session])
    assert "cannot be saved" in capsys.readouterr().err
    assert session.messages == SAID
    assert Path("talk.jsonl").is_file()
