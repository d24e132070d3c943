"""How a model marks calls and thoughts is read off what it was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.golden import talks
from tests.golden.test_tools import source
from tunesmith.inference.manner import PLAIN, find_manner
from tunesmith.models.tokenizer import load_template, load_tokenizer, stop_ids


def load(folder: Path, family: str | None) -> Any:
    """A tokenizer of few words with the special tokens and the template of a family."""
    tiny.make_tokenizer(folder, None)
    (folder / "config.json").write_text('{"model_type": "qwen3"}', "utf-8")
    tokenizer = load_tokenizer(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": talks.SPECIALS})
    if family:
        tokenizer.chat_template = source(family)
    tokenizer.save_pretrained(str(folder))
    return load_tokenizer(folder)


@pytest.mark.parametrize(
    ("family", "tools", "thinks", "marks"),
    [
        ("qwen3", "hermes", True, ("<tool_call>", "</tool_call>", "<think>", "</think>")),
        ("mistral", "mistral", False, ("[TOOL_CALLS]",)),
        ("glm4", "glm4", False, ("<|assistant|>",)),
        ("alpaca", "react", False, ()),
    ],
)
def test_marks_are_those_of_the_template_that_are_special_tokens(
    tmp_path: Path, family: str, tools: str, thinks: bool, marks: tuple[str, ...]
) -> None:
    tokenizer = load(tmp_path, family)
    found = find_manner(load_template(tmp_path, tokenizer), tokenizer)
    assert found.tools is not None
    assert found.tools.name == tools
    assert (found.thinking is not None) is thinks
    assert found.marks(calls=True) == marks
    assert set(found.marks(calls=False)) == {mark for mark in marks if "think" in mark}


def test_a_model_without_a_template_has_no_manner(tmp_path: Path) -> None:
    assert find_manner(None, load(tmp_path, None)) == PLAIN


ENDS = {
    "glm4": ["<|user|>", "<|observation|>"],
    "glm4moe": ["<|user|>", "<|observation|>"],
    "qwen3": ["<|im_end|>"],
    "llama3_1": ["<|eot_id|>"],
}


@pytest.mark.parametrize("family", ENDS)
def test_an_answer_that_calls_ends_where_the_template_ends_it(tmp_path: Path, family: str) -> None:
    tokenizer = load(tmp_path, family)
    template = load_template(tmp_path, tokenizer)
    ends = tokenizer.convert_ids_to_tokens([*stop_ids(tmp_path, tokenizer, template)])
    assert [end for end in ends if end != "<|endoftext|>"] == ENDS[family]
