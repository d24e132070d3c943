"""A talk remembers what was said, and can be kept to be learned from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import tiny
from tunesmith.errors import ModelError, RequestError, RunError
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.load import open_sessions
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.session import ChatSession
from tunesmith.models.chat import ChatModel, load_chat_model
from tunesmith.runs.run import Run

SHORT = Sampling(max_tokens=6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.make_model(tmp_path_factory.mktemp("models") / "model", seed=3)


@pytest.fixture(scope="module")
def model(folder: Path) -> ChatModel:
    return load_chat_model(folder, precision="fp32", device="cpu")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, folder: Path) -> Run:
    root = tmp_path_factory.mktemp("work")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return tiny.train_run(root, folder)


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    return Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.name)))


def alone(model: ChatModel, messages: list[dict[str, str]]) -> str:
    return answer(model, [encode_prompt(model, messages)], SHORT)[0].text


def test_an_answer_follows_from_all_that_was_said(model: ChatModel) -> None:
    session = ChatSession(model, SHORT, system="be brief")
    said = [{"role": "system", "content": "be brief"}]
    for question in ("what is it?", "and then?", "why?"):
        said.append({"role": "user", "content": question})
        expected = alone(model, said)
        assert "".join(session.ask(question)) == expected
        said.append({"role": "assistant", "content": expected})
    assert session.messages == said[1:]


def test_a_talk_without_system_prompt_has_none(model: ChatModel) -> None:
    session = ChatSession(model, SHORT)
    said = "".join(session.ask("hi"))
    assert said == alone(model, [{"role": "user", "content": "hi"}])


def test_an_answer_that_was_left_is_not_remembered(model: ChatModel) -> None:
    session = ChatSession(model, Sampling(max_tokens=50))
    pieces = session.ask("what is it?")
    next(pieces)
    pieces.close()  # type: ignore[attr-defined]
    assert session.messages == []
    assert "".join(session.ask("hi"))


def test_clearing_forgets(model: ChatModel) -> None:
    session = ChatSession(model, SHORT, system="be brief")
    first = "".join(session.ask("what is it?"))
    session.clear()
    assert session.messages == []
    assert "".join(session.ask("what is it?")) == first


def test_a_talk_that_grows_too_long_is_refused_and_can_go_on_after_clearing(
    model: ChatModel,
) -> None:
    session = ChatSession(model, SHORT)
    with pytest.raises(RequestError, match="the model takes 256") as caught:
        list(session.ask("word " * 400))
    assert caught.value.hint == "shorten the messages"
    assert session.messages == []
    assert "".join(session.ask("hi"))
    with pytest.raises(RequestError, match="the model takes 256") as caught:
        list(session.ask("word " * 400))
    assert "/clear" in caught.value.hint
    session.clear()
    assert "".join(session.ask("hi"))


def test_saved_talks_are_appended_as_messages_to_learn_from(
    model: ChatModel, tmp_path: Path
) -> None:
    path = tmp_path / "kept.jsonl"
    session = ChatSession(model, SHORT, system="简短")
    said = "".join(session.ask("营业时间"))
    session.save(path)
    session.clear()
    "".join(session.ask("hi"))
    session.save(path)
    first, second = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    assert first == {
        "messages": [
            {"role": "system", "content": "简短"},
            {"role": "user", "content": "营业时间"},
            {"role": "assistant", "content": said},
        ]
    }
    assert len(second["messages"]) == 3


def test_what_was_saved_can_be_trained_on(model: ChatModel, folder: Path, tmp_path: Path) -> None:
    session = ChatSession(model, Sampling(max_tokens=20))
    for question in ("what is it?", "and then?"):
        assert "".join(session.ask(question))
        session.save(tmp_path / "kept.jsonl")
    data = {"train": [str(tmp_path / "kept.jsonl")], "max_tokens": 128}
    run = tiny.train_run(tmp_path, folder, data=data, run={"steps": 1})
    assert run.status().state == "done"


def test_a_file_that_cannot_be_written_is_named(model: ChatModel, tmp_path: Path) -> None:
    session = ChatSession(model, SHORT)
    with pytest.raises(RunError) as caught:
        session.save(tmp_path / "no" / "kept.jsonl")
    assert caught.value.message == "the conversation cannot be saved: No such file or directory"
    assert caught.value.where == str(tmp_path / "no" / "kept.jsonl")
    with pytest.raises(RunError, match="null byte"):
        session.save(Path("a\0b"))


def test_a_run_beside_its_base_is_two_talks(run: Run) -> None:
    tuned, base = open_sessions(run.name, beside="base", system="s", sampling={"max_tokens": 4})
    assert (tuned.model.name, base.model.name) == (run.name, f"base of {run.name}")
    assert tuned.sampling == base.sampling == Sampling(max_tokens=4)
    assert tuned.system == base.system == "s"


def test_any_other_model_can_stand_beside(run: Run, folder: Path) -> None:
    names = [
        session.model.name
        for session in open_sessions(run.name, beside=str(folder), system="", sampling={})
    ]
    assert names == [run.name, str(folder)]
    assert len(open_sessions(str(folder), beside=None, system="", sampling={})) == 1


def test_a_model_has_no_base_to_stand_beside(folder: Path) -> None:
    with pytest.raises(RunError, match="is no run, so it has no base") as caught:
        open_sessions(str(folder), beside="base", system="", sampling={})
    assert caught.value.where == "--compare"


def test_options_that_mean_nothing_are_refused_before_the_talk(run: Run) -> None:
    with pytest.raises(RequestError, match="temperature cannot be -1"):
        open_sessions(run.name, beside=None, system="", sampling={"temperature": -1.0})


def test_a_model_without_template_cannot_be_talked_to(tmp_path: Path) -> None:
    base = tiny.make_model(tmp_path / "base", template=None)
    with pytest.raises(ModelError, match="has no chat template"):
        open_sessions(str(base), beside=None, system="", sampling={})
