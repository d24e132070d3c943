"""Published files of AGIEval and GSM8K, asked as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.conftest import SHARED
from tunesmith.evaluation.suites.lines import read_agieval, read_gsm8k
from tunesmith.evaluation.suites.measure import SuiteOptions, measure_suite
from tunesmith.evaluation.suites.questions import Question, Suite
from tunesmith.evaluation.suites.written import find_number
from tunesmith.starter import MODEL

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not SHARED, reason="TUNESMITH_SHARED names no folder of real data"),
]
COUNTS = {
    "aqua-rat": 254,
    "gaokao-chinese": 246,
    "gaokao-geography": 199,
    "logiqa-en": 651,
    "logiqa-zh": 651,
    "sat-en": 206,
}
ZH = {"gaokao-chinese", "gaokao-geography", "logiqa-zh"}
LIMIT = 6


@pytest.fixture
def agieval(shared: Path) -> Path:
    return shared / "data" / "ruixiangcui+AGIEval" / "data" / "v1"


@pytest.fixture
def gsm8k(shared: Path) -> Path:
    return shared / "data" / "openai+grade-school-math" / "grade_school_math" / "data"


def test_every_row_of_agieval_is_read(agieval: Path) -> None:
    suite = read_agieval(agieval, 0)
    assert {one.name: len(one.questions) for one in suite.subjects} == COUNTS
    assert {one.name for one in suite.subjects if one.language == "zh"} == ZH
    assert not suite.left_out
    choices = [c for one in suite.subjects for q in one.questions for c in q.choices]
    assert not [choice for choice in choices if choice.startswith(("(A)", "（A）", "A．", "A、"))]


def test_every_row_of_gsm8k_is_read_and_ends_in_a_number(gsm8k: Path) -> None:
    (subject,) = read_gsm8k(gsm8k, 0).subjects
    assert len(subject.questions) == 1319
    assert all(find_number(question.answer) is not None for question in subject.questions)


def prompts(suite: Suite) -> Iterator[tuple[Question, str]]:
    """Write the chat prompts of the first questions by hand."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    for subject in suite.subjects:
        zh = subject.name in ZH
        head = "The following are multiple choice questions (with answers)."
        head = "以下是单项选择题，请选出其中的正确答案。" if zh else head
        for question in subject.questions[:LIMIT]:
            listed = zip("ABCDE", question.choices, strict=False)
            lines = [question.text, *(f"{letter}. {text}" for letter, text in listed)]
            text = "\n".join([f"{head}\n\n{lines[0]}", *lines[1:], "答案：" if zh else "Answer:"])
            yield (
                question,
                tokenizer.apply_chat_template(
                    [{"role": "user", "content": text}],
                    add_generation_prompt=True,
                    tokenize=False,
                ),
            )


def test_agieval_by_letters_is_what_plain_transformers_reach(agieval: Path) -> None:
    scores = measure_suite("starter", "agieval", agieval, SuiteOptions(limit=LIMIT))
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    right = too_long = 0
    for question, text in prompts(read_agieval(agieval, 0)):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        if ids.shape[1] > model.config.max_position_embeddings:
            too_long += 1
            continue
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        letters = "ABCDE"[: len(question.choices)]
        tokens = [tokenizer(one, add_special_tokens=False)["input_ids"] for one in letters]
        assert all(len(one) == 1 for one in tokens)
        likeliest = max(range(len(letters)), key=lambda at: float(logits[tokens[at][0]]))
        right += letters[likeliest] == question.answer
    reached = scores.tuned
    assert reached.total.num_questions == LIMIT * len(COUNTS)
    assert (reached.total.num_right, reached.num_too_long) == (right, too_long)


def test_whole_texts_of_agieval_are_scored(agieval: Path) -> None:
    options = SuiteOptions(score="text", limit=LIMIT, plain=True)
    reached = measure_suite("starter", "agieval", agieval, options).tuned
    assert reached.total.num_questions == LIMIT * len(COUNTS)
    assert reached.total.low <= reached.total.accuracy <= reached.total.high


def test_gsm8k_is_answered(gsm8k: Path) -> None:
    options = SuiteOptions(limit=24, max_tokens=64)
    reached = measure_suite("starter", "gsm8k", gsm8k, options).tuned
    assert reached.total.num_questions == 24
    assert reached.total.num_right <= 4  # the starter knows no arithmetic
    assert reached.num_tokens > 24 * 64
