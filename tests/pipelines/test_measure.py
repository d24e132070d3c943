"""What the starter's card is measured with does not take a wrong answer for a right one."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from tunesmith.evaluation.metrics import holds_fact
from tunesmith.inference.generate import Answer
from tunesmith.models.chat import ChatModel, load_chat_model

STARTER = Path(__file__).parents[2] / "examples" / "starter"
sys.path.append(str(STARTER))
measure = runpy.run_path(str(STARTER / "measure.py"))
keeps_form, count_sentences = measure["keeps_form"], measure["count_sentences"]


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> ChatModel:
    return load_chat_model(tiny_model, precision="fp32", device="cpu")


def given(model: ChatModel, text: str) -> Answer:
    ids = model.tokenizer(text)["input_ids"]
    shown = model.tokenizer.decode(ids, skip_special_tokens=True)
    return Answer(shown, tuple(ids), "stop", 1)


@pytest.mark.parametrize(
    "text", ["the quick brown fox", "the user says hi", "你好", "I am your assistant"]
)
def test_plain_text_keeps_the_form(model: ChatModel, text: str) -> None:
    assert keeps_form(model, given(model, text))


@pytest.mark.parametrize(
    "text",
    ["hi<|im_start|>", "hi<|endoftext|>there", "hi\nuser\nwhat is it?", "assistant:\nhi", "<|im_"],
)
def test_tokens_of_the_form_and_roles_break_it(model: ChatModel, text: str) -> None:
    assert not keeps_form(model, given(model, text))


def greetings(language: str) -> list[list[str]]:
    lines = (STARTER / f"prompts_{language}.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return [row["accept"] for row in rows if row["kind"] == "greeting"]


@pytest.mark.parametrize(
    ("language", "answers"),
    [
        ("en", ["Hello! How can I help you?", "Hi.", "Good morning to you"]),
        ("zh", ["您好!有什么可以帮您?", "你好", "早上好!"]),
    ],
)
def test_a_greeting_is_taken_for_one(language: str, answers: list[str]) -> None:
    for accepted in greetings(language):
        assert all(holds_fact(answer, accepted) for answer in answers)


@pytest.mark.parametrize(
    ("language", "answers"),
    [
        ("en", ["The soup is good.", "This is a nice day", "Delhi", "It did not help."]),
        ("zh", ["不好说", "好", "这是您的书", "他帮我修车", "不客气"]),
    ],
)
def test_what_greets_nobody_is_not(language: str, answers: list[str]) -> None:
    for accepted in greetings(language):
        assert not any(holds_fact(answer, accepted) for answer in answers)


@pytest.mark.parametrize(
    ("prompt", "count"),
    [
        ("One stands here. Two too.\n\nWho?", 2),
        ("Mr. Okoro drives the bus at 9.30.\n\nWho drives? When?", 1),
        ("一句话，很长。\n\n谁？", 1),
        ("一句话。两句话！\n\n谁？", 2),
    ],
)
def test_sentences_of_a_paragraph_are_counted(prompt: str, count: int) -> None:
    assert count_sentences(prompt) == count
