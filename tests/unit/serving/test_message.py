"""A message is the same, however its text was cut on the way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.inference.test_tool_calls import GOLDEN, TOOLS
from tunesmith.inference.engine import Token
from tunesmith.inference.thinking import Thinking, ThoughtSplitter
from tunesmith.inference.tool_calls import FORMATS, ToolParser
from tunesmith.serving.message import Message

MARKS = ["[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<think>", "</think>"]
PIECES = [
    *(text for _, text, _, _ in GOLDEN.values()),
    *MARKS,
    *("<think>\nwhich town\n</think>\n\n", "It is 海螺.", "\n", " ", "<", "[", "<tool_call>"),
]


def told(name: str, pieces: list[str], *, opened: bool = False, one: bool = False) -> Any:
    """Build a message of pieces; its ids are left out, which are drawn."""
    message = Message(
        ThoughtSplitter(Thinking("<think>", "</think>"), opened=opened),
        ToolParser(FORMATS[name], TOOLS),
        MARKS,
        one_call=one,
    )
    for piece in pieces:
        message.push(piece, [Token(0)] * len(piece))
    message.end()
    whole = message.whole()
    calls = [call["function"] for call in whole.pop("tool_calls", ())]
    return whole, calls, message.finish("stop"), message.thought_tokens


@settings(max_examples=80)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.sampled_from(PIECES), max_size=6),
    st.lists(st.integers(0, 600), max_size=8),
    st.booleans(),
    st.booleans(),
)
def test_no_cut_changes_a_message(
    name: str, written: list[str], places: list[int], opened: bool, one: bool
) -> None:
    text = "".join(written)
    cuts = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    whole = told(name, [text], opened=opened, one=one)
    assert told(name, pieces, opened=opened, one=one) == whole
    assert told(name, list(text), opened=opened, one=one) == whole
    said, calls, _, _ = whole
    assert not any(mark in (said["content"] or "") for mark in MARKS)
    assert len(calls) <= 1 or not one


@pytest.mark.parametrize(
    ("text", "thought"), [("<think>a</think>bc", 16), ("<think>a", 8), ("abc", 0), ("<thin", 0)]
)
def test_tokens_of_thoughts_are_counted(text: str, thought: int) -> None:
    assert told("hermes", list(text))[-1] == told("hermes", [text])[-1] == thought
