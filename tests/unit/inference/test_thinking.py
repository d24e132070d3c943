from __future__ import annotations

import pytest

from tests.golden.test_tools import source
from tunesmith.inference.parts import Part, Said, put_together
from tunesmith.inference.thinking import Thinking, ThoughtSplitter, find_thinking

MARKS = Thinking("<think>", "</think>")
CASES = {
    "<think>\nwhich town\n</think>\n\nIt is Ulm.": ("which town", "It is Ulm."),
    "\n<think>a\n\nb</think>c": ("a\n\nb", "c"),
    "<think></think>\nc": ("", "c"),
    "It is Ulm.\n": ("", "It is Ulm.\n"),
    "  a <think>b</think>": ("", "  a <think>b</think>"),
    "<thin": ("", "<thin"),
    "<think>cut </thin": ("cut </thin", ""),
    "<think>海螺 < 3 </ think>": ("海螺 < 3 </ think>", ""),
    "<think>a</think>b</think>": ("a", "b</think>"),
}
OPENED = {
    "\nwhich town\n</think>\n\nUlm": ("which town", "Ulm"),
    "cut": ("cut", ""),
    "</think>\n\n": ("", ""),
}


def split(pieces: list[str], *, opened: bool = False) -> Said:
    splitter = ThoughtSplitter(MARKS, opened=opened)
    parts: list[Part] = [part for piece in pieces for part in splitter.push(piece)]
    return put_together([*parts, *splitter.end()])


@pytest.mark.parametrize(
    ("opened", "text"), [*((False, text) for text in CASES), *((True, text) for text in OPENED)]
)
def test_a_thought_is_told_apart_wherever_the_answer_is_cut(opened: bool, text: str) -> None:
    thought, says = (OPENED if opened else CASES)[text]
    wanted = Said(says, thought, ())
    assert split([text], opened=opened) == wanted
    assert split(list(text), opened=opened) == wanted
    for at in range(1, len(text)):
        assert split([text[:at], text[at:]], opened=opened) == wanted


def test_a_thought_comes_before_it_is_whole() -> None:
    splitter = ThoughtSplitter(MARKS, opened=False)
    assert put_together(splitter.push("<think>which to")).thought == "which to"
    assert splitter.num_read == len("<think>which to")
    splitter.push("wn</think>\n\nUlm")
    assert splitter.num_read == len("<think>which town</think>")


@pytest.mark.parametrize(
    ("family", "knows"), [("qwen3", True), ("glm4moe", True), ("qwen2_5", False), ("llama3", False)]
)
def test_marks_are_found_in_the_template(family: str, knows: bool) -> None:
    assert find_thinking(source(family)) == (MARKS if knows else None)


def test_a_prompt_tells_whether_the_model_thinks_at_once() -> None:
    assert MARKS.is_opened_by("<|im_start|>assistant\n<think>\n")
    assert MARKS.is_closed_by("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert not MARKS.is_opened_by("<|im_start|>assistant\n")
