"""Benchmarks in their published layouts reach what plain transformers compute."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests import suites, tiny
from tests.command import Command
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.evaluation.suites import choices as choices_module
from tunesmith.evaluation.suites.choices import choice_logps
from tunesmith.evaluation.suites.examinee import Loaded
from tunesmith.evaluation.suites.lines import read_agieval, read_own
from tunesmith.evaluation.suites.measure import SuiteOptions, measure_suite
from tunesmith.evaluation.suites.prompts import Poser, Way
from tunesmith.evaluation.suites.questions import Question, Suite
from tunesmith.evaluation.suites.tables import read_tables
from tunesmith.inference.generate import Answer
from tunesmith.models.chat import load_chat_model
from tunesmith.models.layout import find_layout
from tunesmith.runs.run import Run
from tunesmith.starter import MODEL

CLOSE = 1e-5


@pytest.fixture(scope="module")
def mmlu(root: Path) -> Path:
    return suites.write_mmlu(root / "mmlu")


class Plain:
    """Log-probabilities by transformers alone: one padded prompt and choice at a time."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer = AutoTokenizer.from_pretrained(folder)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        text = self.tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
        return self.ids(text)

    def logp(self, prompt: list[int], answer: list[int]) -> float:
        row = prompt + answer
        pad = 16 - len(row) % 16
        mask = torch.tensor([[1] * len(row) + [0] * pad])
        with torch.no_grad():
            logits = self.model(
                input_ids=torch.tensor([row + [0] * pad]), attention_mask=mask, use_cache=False
            ).logits[0]
        logps = logits.double().log_softmax(-1)
        return sum(float(logps[len(prompt) - 1 + at, token]) for at, token in enumerate(answer))


def listed(question: Question, call: str) -> str:
    lines = [f"{letter}. {text}" for letter, text in zip("ABCD", question.choices, strict=True)]
    return "\n".join([question.text, *lines, call])


def mmlu_text(suite: Suite, at: int, question: Question, shots: int) -> str:
    subject = suite.subjects[at]
    title = subject.name.replace("_", " ")
    parts = [f"The following are multiple choice questions (with answers) about {title}."]
    shown = subject.examples[:shots]
    parts += [f"{listed(example, 'Answer:')} {example.answer}" for example in shown]
    return "\n\n".join([*parts, listed(question, "Answer:")])


def ours(folder: Path, suite: Suite, way: Way) -> list[list[float]]:
    loaded = load_chat_model(folder, precision="fp32", device="cpu")
    posed = [
        Poser(Loaded(loaded, "fp32"), way).pose(subject, question)
        for subject in suite.subjects
        for question in subject.questions
    ]
    assert all(one.fits and one.num_dropped == 0 for one in posed)
    done: list[int] = []
    found = choice_logps(loaded.model, posed, done.append)
    assert sum(done) == len(posed)
    return found.logps


def close(found: list[list[float]], expected: list[list[float]], most: float = CLOSE) -> None:
    pairs = (torch.tensor(rows, dtype=torch.float64) for rows in (found, expected))
    torch.testing.assert_close(*pairs, rtol=0, atol=most)


def accuracy(suite: Suite, logps: list[list[float]]) -> float:
    questions = [question for subject in suite.subjects for question in subject.questions]
    right = [
        max(range(4), key=given.__getitem__) == "ABCD".index(question.answer)
        for question, given in zip(questions, logps, strict=True)
    ]
    return sum(right) / len(right)


@pytest.mark.parametrize("shape", ["qwen3", "gemma2", "gpt2", "cohere", "bloom", "starter"])
@pytest.mark.parametrize("shots", [0, 3])
def test_letters_are_as_likely_as_plain_transformers_say(
    root: Path, mmlu: Path, shape: str, shots: int
) -> None:
    folder = MODEL if shape == "starter" else tiny.make_model(root / shape, shape, **suites.LONG)
    suite = read_tables("mmlu", mmlu, shots)
    found = ours(folder, suite, Way("choice", "letter", shots, chat=False, max_tokens=8))
    plain = Plain(folder)
    letters = [plain.ids(f" {letter}") for letter in "ABCD"]
    expected = [
        [plain.logp(prompt, letter) for letter in letters]
        for at, subject in enumerate(suite.subjects)
        for prompt in (plain.ids(mmlu_text(suite, at, q, shots)) for q in subject.questions)
    ]
    close(found, expected)
    options = SuiteOptions(shots=shots, plain=True)
    scores = measure_suite(folder, "mmlu", mmlu, options)
    assert scores.tuned.total.accuracy == accuracy(suite, expected)


@pytest.mark.parametrize("starter", [False, True])
def test_chat_models_are_asked_through_their_template(
    root: Path, model: Path, starter: bool
) -> None:
    folder = MODEL if starter else model
    data = suites.write_ceval(root / "ceval")
    suite = read_tables("ceval", data, 2)
    found = ours(folder, suite, Way("choice", "letter", 2, chat=True, max_tokens=8))
    plain = Plain(folder)
    expected = []
    for subject, title in zip(suite.subjects, ["法学", "逻辑学"], strict=True):
        head = f"以下是中国关于{title}考试的单项选择题，请选出其中的正确答案。\n\n"
        for question in subject.questions:
            messages = []
            for example in subject.examples[:2]:
                messages.append({"role": "user", "content": listed(example, "答案：")})
                messages.append({"role": "assistant", "content": example.answer})
            messages.append({"role": "user", "content": listed(question, "答案：")})
            messages[0]["content"] = head + messages[0]["content"]
            prompt = plain.chat(messages)
            expected.append([plain.logp(prompt, plain.ids(letter)) for letter in "ABCD"])
    close(found, expected)
    scores = measure_suite(folder, "ceval", data, SuiteOptions(shots=2))
    assert scores.prompt == "chat"
    assert scores.tuned.total.accuracy == accuracy(suite, expected)


@pytest.mark.parametrize("shape", ["qwen3", "bloom", "starter"])
def test_whole_texts_are_scored_by_their_bytes(root: Path, mmlu: Path, shape: str) -> None:
    folder = MODEL if shape == "starter" else tiny.make_model(root / shape, shape, **suites.LONG)
    suite = read_tables("mmlu", mmlu, 1)
    found = ours(folder, suite, Way("choice", "text", 1, chat=False, max_tokens=8))
    plain = Plain(folder)
    expected = []
    for subject in suite.subjects:
        (shown, *_) = subject.examples
        right = shown.choices["ABCD".index(shown.answer)]
        before = f"Question: {shown.text}\nAnswer: {right}\n\nQuestion: "
        for question in subject.questions:
            prompt = plain.ids(f"{before}{question.text}\nAnswer:")
            texts = [plain.ids(f" {choice}") for choice in question.choices]
            expected.append([plain.logp(prompt, text) for text in texts])
    close(found, expected, 5 * CLOSE)
    questions = [question for subject in suite.subjects for question in subject.questions]
    by_byte = [
        [logp / len(choice) for logp, choice in zip(logps, question.choices, strict=True)]
        for logps, question in zip(expected, questions, strict=True)
    ]
    options = SuiteOptions(score="text", shots=1, plain=True)
    scores = measure_suite(folder, "mmlu", mmlu, options)
    assert scores.tuned.total.accuracy == accuracy(suite, by_byte)


def test_a_common_start_is_computed_once(
    model: Path, mmlu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    suite = read_tables("mmlu", mmlu, 5)
    way = Way("choice", "letter", 5, chat=False, max_tokens=8)
    loaded = load_chat_model(model, precision="fp32", device="cpu")
    posed = [
        Poser(Loaded(loaded, "fp32"), way).pose(s, question)
        for s in suite.subjects
        for question in s.questions
    ]
    alone = sum(len(one.prompt) for one in posed)
    shared = choice_logps(loaded.model, posed, lambda _: None)
    assert shared.num_tokens < alone / 3
    monkeypatch.setattr(choices_module, "TOKENS", 1)
    apart = choice_logps(loaded.model, posed, lambda _: None)
    assert apart.num_tokens >= alone
    close(shared.logps, apart.logps)
    assert find_layout(loaded.model).is_flat


def test_examples_that_find_no_room_are_dropped_whole(root: Path, mmlu: Path) -> None:
    folder = tiny.make_model(root / "short", max_position_embeddings=400)
    scores = measure_suite(folder, "mmlu", mmlu, SuiteOptions(plain=True))
    questions = scores.tuned.total.num_questions
    assert 0 < scores.tuned.num_dropped < 5 * questions
    assert scores.tuned.num_too_long == 0
    loaded = load_chat_model(folder, precision="fp32", device="cpu")
    suite = read_tables("mmlu", mmlu, 5)
    subject, question = suite.subjects[0], suite.subjects[0].questions[0]
    way = Way("choice", "letter", 5, chat=False, max_tokens=8)
    posed = Poser(Loaded(loaded, "fp32"), way).pose(subject, question)
    text = mmlu_text(suite, 0, question, 5 - posed.num_dropped)
    assert posed.prompt == Plain(folder).ids(text)
    longer = mmlu_text(suite, 0, question, 6 - posed.num_dropped)
    assert len(Plain(folder).ids(longer)) + 1 > 400


def test_questions_longer_than_the_model_takes_count_as_wrong(root: Path, mmlu: Path) -> None:
    folder = tiny.make_model(root / "shorter", max_position_embeddings=64)
    scores = measure_suite(folder, "mmlu", mmlu, SuiteOptions(plain=True))
    assert scores.tuned.num_too_long == scores.tuned.total.num_questions == 12
    assert scores.tuned.total.accuracy == 0.0


@pytest.mark.parametrize(
    ("name", "write", "subjects", "categories"),
    [
        ("mmlu", suites.write_mmlu, ["anatomy", "high_school_physics"], {"STEM": 6, "other": 6}),
        ("ceval", suites.write_ceval, ["law", "logic"], {"humanities": 12}),
        (
            "cmmlu",
            suites.write_cmmlu,
            ["arts", "chinese_history"],
            {"humanities": 12, "China specific": 6},
        ),
        ("agieval", suites.write_agieval, ["gaokao-physics", "logiqa-en"], {}),
    ],
)
def test_each_layout_is_read_and_counted_by_subject_and_category(
    model: Path,
    tmp_path: Path,
    name: str,
    write: Callable[[Path], Path],
    subjects: list[str],
    categories: dict[str, int],
) -> None:
    scores = measure_suite(model, name, write(tmp_path / name), SuiteOptions())
    reached = scores.tuned
    assert [one.name for one in reached.subjects] == subjects
    assert {one.name: one.num_questions for one in reached.categories} == categories
    assert reached.total.num_questions == 12
    assert reached.total.num_right == sum(one.num_right for one in reached.subjects)
    assert reached.num_tokens > 0
    assert reached.tokens_per_second == pytest.approx(reached.num_tokens / reached.seconds)
    assert scores.shots == (0 if name == "agieval" else 5)


def test_what_likelihood_cannot_choose_is_left_out_and_said(model: Path, tmp_path: Path) -> None:
    suite = read_agieval(suites.write_agieval(tmp_path / "a"), 0)
    assert suite.left_out == {"several right answers": 1, "no choices": 1}
    assert [subject.language for subject in suite.subjects] == ["zh", "en"]
    assert suite.subjects[1].questions[1].text.startswith("There are many cups.\nWhat")


def test_the_limit_takes_the_first_questions_of_each_subject(model: Path, mmlu: Path) -> None:
    scores = measure_suite(model, "mmlu", mmlu, SuiteOptions(limit=2))
    assert [one.num_questions for one in scores.tuned.subjects] == [2, 2]
    assert scores.label == "mmlu, letter, 5 shots, chat, first 2"


@pytest.mark.parametrize("shots", [0, 2])
def test_numbers_are_written_and_compared(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shots: int
) -> None:
    data = suites.write_gsm8k(tmp_path / "gsm8k")
    asked: list[str] = []

    def solve(loaded: Any, prompts: Any, sampling: Any) -> list[Answer]:
        texts = [loaded.tokenizer.decode(prompt) for prompt in prompts]
        asked.extend(texts)
        said = [text.rsplit("boxes hold ", 1)[1].split()[0] for text in texts]
        return [Answer(f"so #### {2 * int(n)}.00", (1,), "stop", 4) for n in said]

    monkeypatch.setattr("tunesmith.evaluation.suites.examinee.answer", solve)
    options = SuiteOptions(shots=shots, max_tokens=4)
    assert measure_suite(model, "gsm8k", data, options).tuned.total.num_right == 6
    assert all(text.count("Two boxes") == shots + 1 for text in asked)
    assert not any("<<" in text for text in asked)


def test_a_model_that_writes_nonsense_has_no_number_right(model: Path, tmp_path: Path) -> None:
    data = suites.write_gsm8k(tmp_path / "gsm8k")
    for plain in (False, True):
        scores = measure_suite(model, "gsm8k", data, SuiteOptions(plain=plain, max_tokens=2))
        assert scores.tuned.total.accuracy == 0.0
        assert scores.score is None


def test_a_file_of_ones_own_may_hold_examples(model: Path, tmp_path: Path) -> None:
    path = suites.write_own(tmp_path / "ours.jsonl")
    rows = [{**row, "subject": "cups", "id": at} for at, row in enumerate(suites.read_lines(path))]
    rows[0]["split"] = "dev"
    tiny.write_rows(path, rows)
    suite = read_own(path, 1)
    assert [question.answer for question in suite.subjects[0].examples] == ["A"]
    assert [question.answer for question in suite.subjects[0].questions] == list("DCBAD")
    assert measure_suite(model, str(path), None, SuiteOptions(shots=1)).suite == "ours"


def test_answers_of_a_file_are_compared_word_for_word(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"question": "one", "answer": "It is 7."}, {"question": "two", "answer": 12}]
    path = tiny.write_rows(tmp_path / "said.jsonl", rows)
    said = {"one": "it is 7 .", "two": "It is 12."}

    def say(loaded: Any, prompts: Any, sampling: Any) -> list[Answer]:
        texts = [loaded.tokenizer.decode(prompt) for prompt in prompts]
        found = [next(said[name] for name in said if name in text) for text in texts]
        return [Answer(text, (1,), "stop", 4) for text in found]

    monkeypatch.setattr("tunesmith.evaluation.suites.examinee.answer", say)
    scores = measure_suite(model, str(path), None, SuiteOptions(max_tokens=8))
    assert (scores.tuned.total.num_right, scores.tuned.total.num_questions) == (1, 2)


@pytest.fixture(scope="module")
def made(root: Path, model: Path) -> Run:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TUNESMITH_RUNS", str(root / "runs"))
        environment.setenv("TUNESMITH_CACHE", str(root / "cache"))
        return tiny.train_run(root, model, data={"validation_share": 0.1})


@pytest.fixture
def run(made: Run, tmp_path: Path) -> Run:
    (tmp_path / "runs").mkdir()
    return Run(Path(shutil.copytree(made.path, tmp_path / "runs" / made.name)))


def test_scores_are_kept_beside_what_is_there(run: Run, mmlu: Path) -> None:
    evaluate(run.path, max_tokens=4)
    rows = json.loads(run.scores_file.read_text("utf-8"))
    one = measure_suite(run.path, "mmlu", mmlu, SuiteOptions(shots=0))
    other = measure_suite(run.path, "mmlu", mmlu, SuiteOptions(shots=0, score="text", base=False))
    kept = json.loads(run.scores_file.read_text("utf-8"))
    assert {name: kept[name] for name in rows} == rows
    assert list(kept["suites"]) == ["mmlu, letter, 0 shots, chat", "mmlu, text, 0 shots, chat"]
    assert kept["suites"][one.label]["tuned"]["total"]["num_questions"] == 12
    assert other.base is None
    evaluate(run.path, max_tokens=4)
    assert json.loads(run.scores_file.read_text("utf-8"))["suites"] == kept["suites"]


def test_the_base_of_a_run_reaches_what_it_reaches_alone(run: Run, model: Path, mmlu: Path) -> None:
    beside = measure_suite(run.path, "mmlu", mmlu, SuiteOptions(shots=1))
    alone = measure_suite(model, "mmlu", mmlu, SuiteOptions(shots=1))
    assert beside.base is not None
    assert beside.base.subjects == alone.tuned.subjects
    assert alone.base is None


def test_the_table_names_subjects_categories_and_what_it_took(
    command: Command, run: Run, mmlu: Path
) -> None:
    ended = command("evaluate", run.path, "--suite", "mmlu", "--data", mmlu, "--shots", 1)
    assert ended.code == 0, ended.err
    for part in ("base %", "tuned %", "high_school_physics", "STEM", "all", "mean of subjects"):
        assert part in ended.out
    assert "2 of the benchmark's 57 subjects were there" in ended.out
    assert "a second" in ended.out


def test_a_bar_counts_the_questions_where_somebody_looks(
    model: Path, mmlu: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    screen = Console(file=StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr("tunesmith.data.progress.console", screen)
    measure_suite(model, "mmlu", mmlu, SuiteOptions(shots=0))
    assert "12/12" in screen.file.getvalue()  # type: ignore[attr-defined]
