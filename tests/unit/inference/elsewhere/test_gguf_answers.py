"""A GGUF is talked with and measured by the engine that serves it, whatever folder it lies in."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

from tests import tiny
from tests.asking import load
from tests.command import Command
from tunesmith.errors import ModelError, RequestError, RunError
from tunesmith.evaluation import metrics
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.gguf.write import write_gguf
from tunesmith.inference.choose import which_engine
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.llama_cpp import LlamaCpp, LlamaCppOptions
from tunesmith.inference.load import open_sessions
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.text_stream import UNFINISHED
from tunesmith.models.chat import ChatModel
from tunesmith.models.gguf_file import find_gguf, name_of_gguf

SHORT = 6


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> ChatModel:
    return load(tmp_path_factory.mktemp("models") / "shop", "qwen3")


@pytest.fixture(scope="module")
def folder(model: ChatModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `export --format ollama` leaves."""
    found = tmp_path_factory.mktemp("exports") / "out"
    found.mkdir()
    write_gguf(model, found / "model.gguf", "f32")
    (found / "Modelfile").write_text("FROM ./model.gguf\n")
    return found


def said_by(model: ChatModel, *messages: str) -> str:
    roles = ("user", "assistant")
    talk = [{"role": roles[at % 2], "content": text} for at, text in enumerate(messages)]
    return answer(model, [encode_prompt(model, talk)], Sampling(max_tokens=SHORT))[0].text


def test_a_talk_goes_on_as_with_the_model_itself(model: ChatModel, folder: Path) -> None:
    (session,) = open_sessions(str(folder), beside=None, system="", sampling={"max_tokens": SHORT})
    with closing(session):
        first = "".join(session.ask("what is it?"))
        assert first == said_by(model, "what is it?")
        second = said_by(model, "what is it?", first, "你好").rstrip(UNFINISHED)  # it was cut
        assert "".join(session.ask("你好")) == second
        pieces = session.ask("why?")
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
        assert len(session.messages) == 4
        with pytest.raises(RequestError, match="the model takes"):
            list(session.ask("x " * 5000))


@pytest.mark.proof
def test_two_files_of_one_name_are_told_apart(folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(folder, tmp_path / "other")
    sessions = open_sessions(str(folder), beside=str(other), system="", sampling={})
    for session in sessions:
        session.close()
    assert len({session.model.name for session in sessions}) == 2


def test_a_gguf_has_no_base_to_talk_with(folder: Path) -> None:
    with pytest.raises(RunError, match="no run"):
        open_sessions(str(folder), beside="base", system="", sampling={})


def test_its_answers_are_measured(model: ChatModel, folder: Path, tmp_path: Path) -> None:
    asked = next(text for text in tiny.TEXTS if said_by(model, text).strip())
    right = said_by(model, asked)
    rows = [
        {"instruction": "what is it?", "output": "a shop", "fact": ["shop", "ser"]},
        {"instruction": asked, "output": right, "fact": ["shop", "ser"]},
    ]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    scores = evaluate(folder, data=[data], max_tokens=SHORT)
    expected = [said_by(model, str(row["instruction"])) for row in rows]
    assert [each.tuned for each in scores.answers] == expected
    assert (scores.num_rows, scores.base, scores.tuned.loss) == (2, None, None)
    outputs = [str(row["output"]) for row in rows]
    assert scores.tuned.bleu == pytest.approx(metrics.bleu(expected, outputs))
    assert scores.tuned.exact_match == 0.5
    held = [metrics.holds_fact(text, ("shop", "ser")) for text in expected]
    assert scores.tuned.fact_rate == sum(held) / 2


def test_the_command_line_measures_it(command: Command, folder: Path, tmp_path: Path) -> None:
    data = tiny.write_rows(tmp_path / "rows.jsonl", [{"instruction": "hm?", "output": "yes"}])
    outcome = command(
        "evaluate", folder / "model.gguf", "--data", data, "--max-tokens", "4", "--max-rows", "1"
    )
    assert (outcome.code, outcome.err) == (0, "")
    assert "ROUGE-L" in outcome.out
    assert "held-out loss" not in outcome.out
    alone = command("evaluate", folder)
    assert (alone.code, "--data FILE" in alone.err) == (2, True)


def test_a_folder_is_served_as_its_file(folder: Path, tmp_path: Path) -> None:
    assert which_engine(str(folder)) == "llama.cpp"
    assert find_gguf(folder) == folder / "model.gguf"
    assert find_gguf(tmp_path) is None
    several = tmp_path / "several"
    several.mkdir()
    for name in ("a.gguf", "b.gguf"):
        shutil.copy(folder / "model.gguf", several / name)
    with pytest.raises(ModelError, match=r"several models: a\.gguf, b\.gguf"):
        find_gguf(several)
    (several / "config.json").write_text("{}")
    assert find_gguf(several) is None
    parts = tmp_path / "parts"
    parts.mkdir()
    for number in (1, 2):
        shutil.copy(folder / "model.gguf", parts / f"big-0000{number}-of-00002.gguf")
    assert find_gguf(parts) == parts / "big-00001-of-00002.gguf"
    assert name_of_gguf(parts / "big-00001-of-00002.gguf") == "big"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("model.gguf", "told"),
        ("model-q4_k_m.gguf", "told"),
        ("ggml-model-f16.gguf", "told"),
        ("polite.gguf", "polite"),
        ("model-a.gguf", "model-a"),
        ("polite-q4_k_m.gguf", "polite-q4_k_m"),
    ],
)
def test_a_model_is_called_by_its_file_or_by_what_the_file_says(
    model: ChatModel, tmp_path: Path, file: str, name: str
) -> None:
    told = ChatModel(
        "told", model.model, model.tokenizer, model.template, model.stop_ids, model.folder
    )
    write_gguf(told, tmp_path / file, "f32")
    assert name_of_gguf(tmp_path / file) == name


def test_an_adapter_cannot_be_called_as_the_model_is(folder: Path) -> None:
    called = name_of_gguf(folder / "model.gguf")
    options = LlamaCppOptions({called: folder / "adapter.gguf"})
    with pytest.raises(RequestError, match="called"):
        LlamaCpp(folder / "model.gguf", options)
