"""What can never be answered is refused before anybody waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.errors import RequestError
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.serving.service import Service


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ChatModel:
    return load_chat_model(tiny_model, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    """A model that only continues text."""
    folder = tiny.make_model(tmp_path_factory.mktemp("models") / "plain", template=None)
    return load_chat_model(folder, precision="fp32", device="cpu")


def refusal(model: ChatModel, asked: Any) -> RequestError:
    with pytest.raises(RequestError) as caught:
        asyncio.run(Service(model, "tiny").prepare(asked, {}))
    return caught.value


@pytest.mark.parametrize("as_messages", [True, False])
def test_a_text_that_no_tokens_could_hold_is_not_tokenized(
    model: ChatModel, as_messages: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Service, "_tokenize", lambda *_: pytest.fail("it was tokenized"))
    longest = max(map(len, model.tokenizer.get_vocab()))
    text = "a" * (256 * longest + 1)
    problem = refusal(model, [{"role": "user", "content": text}] if as_messages else text)
    assert problem.message == (
        f"the prompt has {len(text):,} characters, the model takes 256 tokens with its answer"
    )
    assert (problem.hint, problem.where) == ("shorten the messages", "messages")


def test_messages_to_a_model_without_template_tell_no_path(plain: ChatModel) -> None:
    problem = refusal(plain, [{"role": "user", "content": "hi"}])
    assert "has no chat template" in problem.message
    assert (problem.hint, problem.where) == ("use /generate with a prompt", "messages")


def test_a_text_without_a_token_has_nothing_to_go_on_from(plain: ChatModel) -> None:
    problem = refusal(plain, "")
    assert (problem.message, problem.where) == ("the prompt is empty", "prompt")
    assert asyncio.run(Service(plain, "tiny").prepare("hi", {})).prompt
