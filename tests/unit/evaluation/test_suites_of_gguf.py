"""A GGUF reaches on a benchmark what plain transformers compute with the weights it was made of."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from tests import suites, tiny
from tests.command import Command
from tests.unit.evaluation.test_suites import Plain, accuracy, close, listed, mmlu_text
from tests.unit.export.gguf.test_vocabulary import make_chat, sentencepiece
from tunesmith.errors import RunError
from tunesmith.evaluation.suites.examinee import Gguf, Loaded
from tunesmith.evaluation.suites.lines import read_own
from tunesmith.evaluation.suites.measure import SuiteOptions, measure_suite
from tunesmith.evaluation.suites.prompts import Poser, Way
from tunesmith.evaluation.suites.questions import Suite
from tunesmith.evaluation.suites.tables import read_tables
from tunesmith.evaluation.suites.written import write_answers
from tunesmith.export.gguf.write import write_gguf
from tunesmith.inference.text_stream import UNFINISHED
from tunesmith.models.chat import load_chat_model
from tunesmith.starter import MODEL


@pytest.fixture(scope="module")
def file(model: Path, root: Path) -> Path:
    return packed(model, root / "of-model.gguf")


@pytest.fixture(scope="module")
def starter(root: Path) -> Path:
    return packed(MODEL, root / "starter.gguf")


@pytest.fixture(scope="module")
def mmlu(root: Path) -> Path:
    return suites.write_mmlu(root / "mmlu", 3)


def packed(folder: Path, to: Path) -> Path:
    write_gguf(load_chat_model(folder, precision="fp32", device="cpu"), to, "f32")
    return to


def heard(file: Path, suite: Suite, way: Way) -> list[list[float]]:
    with closing(Gguf(file, writes=False)) as examinee:
        posed = [
            Poser(examinee, way).pose(subject, question)
            for subject in suite.subjects
            for question in subject.questions
        ]
        assert all(one.fits and one.num_dropped == 0 for one in posed)
        done: list[int] = []
        found = examinee.choose(posed, done.append)
    assert sum(done) == len(posed)
    assert found.num_tokens < sum(len(one.prompt) * len(one.answers) for one in posed)
    return found.logps


def test_letters_are_as_likely_as_with_its_weights(model: Path, file: Path, mmlu: Path) -> None:
    suite = read_tables("mmlu", mmlu, 2)
    plain = Plain(model)
    letters = [plain.ids(f" {letter}") for letter in "ABCD"]
    expected = [
        [plain.logp(prompt, letter) for letter in letters]
        for at, subject in enumerate(suite.subjects)
        for prompt in (plain.ids(mmlu_text(suite, at, q, 2)) for q in subject.questions)
    ]
    close(heard(file, suite, Way("choice", "letter", 2, chat=False, max_tokens=8)), expected)
    scores = measure_suite(file, "mmlu", mmlu, SuiteOptions(shots=2, plain=True))
    assert scores.tuned.total.accuracy == accuracy(suite, expected)
    assert (scores.model, scores.prompt, scores.precision) == ("of-model", "plain", "gguf")
    same = measure_suite(model, "mmlu", mmlu, SuiteOptions(shots=2, plain=True))
    assert scores.tuned.subjects == same.tuned.subjects


def test_texts_of_half_characters_are_as_likely_as_with_its_weights(
    model: Path, file: Path, root: Path
) -> None:
    suite = read_tables("ceval", suites.write_ceval(root / "ceval", 2), 1)
    plain = Plain(model)
    assert any("\ufffd" in plain.tokenizer.decode([token]) for token in plain.ids("红色"))
    expected = []
    for subject in suite.subjects:
        (shown, *_) = subject.examples
        right = shown.choices["ABCD".index(shown.answer)]
        for question in subject.questions:
            talk = [
                {"role": "user", "content": shown.text},
                {"role": "assistant", "content": right},
                {"role": "user", "content": question.text},
            ]
            prompt = plain.chat(talk)
            expected.append([plain.logp(prompt, plain.ids(text)) for text in question.choices])
    close(heard(file, suite, Way("choice", "text", 1, chat=True, max_tokens=8)), expected, 1e-4)


@pytest.mark.proof
def test_a_vocabulary_of_sentencepiece_goes_on_without_a_blank(root: Path, mmlu: Path) -> None:
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    chat = make_chat(root / "pieces", sentencepiece(prefixed=True), **named)
    write_gguf(chat, root / "pieces.gguf", "f32")
    suite = read_tables("mmlu", mmlu, 0)
    plain = Plain(root / "pieces")
    expected = []
    for subject in suite.subjects:
        head = "The following are multiple choice questions (with answers) about "
        head += f"{subject.name.replace('_', ' ')}.\n\n"
        for question in subject.questions:
            text = head + listed(question, "Answer:")
            prompt = [1, *plain.ids(text)]
            both = [[1, *plain.ids(f"{text} {letter}")] for letter in "ABCD"]
            assert all(ids[: len(prompt)] == prompt for ids in both)
            expected.append([plain.logp(prompt, ids[len(prompt) :]) for ids in both])
    way = Way("choice", "letter", 0, chat=False, max_tokens=8)
    close(heard(root / "pieces.gguf", suite, way), expected)


@pytest.mark.proof
def test_the_starter_reaches_what_it_reaches_unpacked(
    starter: Path, root: Path, mmlu: Path
) -> None:
    data = suites.write_ceval(root / "more")
    for suite, folder in (("ceval", data), ("mmlu", mmlu)):
        for options in (SuiteOptions(shots=2), SuiteOptions(shots=1, score="text", plain=True)):
            one, other = (measure_suite(each, suite, folder, options) for each in (starter, MODEL))
            assert one.tuned.subjects == other.tuned.subjects
            assert one.label == other.label


@pytest.mark.proof
@pytest.mark.parametrize("plain", [False, True])
def test_answers_are_written_as_its_weights_write_them(
    starter: Path, tmp_path: Path, plain: bool
) -> None:
    asked = ["Who are you?", "What can I eat here?", "你们几点开门？", "Is it far?"]
    rows = [{"question": text, "answer": "none"} for text in asked]
    suite = read_own(tiny.write_rows(tmp_path / "said.jsonl", rows), 0)
    way = Way("text", "letter", 0, chat=not plain, max_tokens=6)
    (subject,) = suite.subjects
    written = []
    loaded = load_chat_model(MODEL, precision="fp32", device="cpu")
    for examinee in (Gguf(starter, writes=True), Loaded(loaded, "fp32")):
        with closing(examinee):
            posed = [Poser(examinee, way).pose(subject, each) for each in subject.questions]
            found = write_answers(examinee.write, posed, way, lambda _: None)
        written.append([text.rstrip(UNFINISHED) for text in found.texts])
    assert written[0] == written[1]
    assert len(set(written[0])) > 1
    options = SuiteOptions(plain=plain, max_tokens=6)
    scores = measure_suite(starter, str(tmp_path / "said.jsonl"), None, options)
    assert (scores.score, scores.tuned.total.num_right) == (None, 0)


def test_a_gguf_has_no_base_and_takes_its_place_in_the_table(
    command: Command, file: Path, mmlu: Path
) -> None:
    with pytest.raises(RunError, match="of-model is no run"):
        measure_suite(file, "mmlu", mmlu, SuiteOptions(base=False))
    ended = command("evaluate", file, "--suite", "mmlu", "--data", mmlu, "--shots", 0, "--limit", 1)
    assert (ended.code, ended.err) == (0, "")
    assert "of-model: mmlu, letter, 0 shots, chat, first 1" in ended.out
