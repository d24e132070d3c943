from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.golden import talks
from tests.golden.test_tools import OURS, THEIRS, build, source
from tunesmith.errors import DataError, RequestError
from tunesmith.inference.parts import CallArguments, CallStart, Part, Said, Text, put_together
from tunesmith.inference.tool_calls import (
    FORMATS,
    ToolFormat,
    ToolParser,
    find_tool_format,
    named_tool_format,
    read_calls,
)
from tunesmith.templates import Template

TOOLS = [
    *talks.TOOLS,
    {
        "type": "function",
        "function": {
            "name": "count",
            "parameters": {
                "type": "object",
                "properties": {
                    "upto": {"type": "integer"},
                    "label": {"type": "string"},
                    "either": {"anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "words": {"type": "array", "items": {"type": "string"}},
                    "deep": {"type": "object"},
                },
            },
        },
    },
]
NAMES = {"qwen2_5": "hermes", "qwen3": "hermes", "qwen3_instruct_2507": "hermes"} | {
    "llama3_1": "llama3",
    "llama3_2": "llama3",
    "glm4moe": "glm_xml",
    "glm4": "glm4",
    "chatml": "hermes",
    "alpaca": "react",
    "mistral": "mistral",
    "qwen3_5_think": "qwen_xml",
}
FIND = ("find_shop", {"city": "北京"})
COUNT = ("count", {"upto": 3, "label": "7"})
BOTH = (FIND, COUNT)

GOLDEN: dict[str, tuple[str, str, str, tuple[tuple[str, dict[str, Any]], ...]]] = {
    "hermes": (
        "hermes",
        (
            'I look.\n<tool_call>\n{"name": "find_shop", '
            '"arguments": {"city": "北京"}}\n</tool_call>\n'
            '<tool_call>\n{"name": "count", "arguments": {"upto": 3, "label": "7"}}\n</tool_call>'
        ),
        "I look.",
        BOTH,
    ),
    "hermes, arguments first, then spelled as a text": (
        "hermes",
        (
            '<tool_call>{"arguments":{"city":"北京"},"name":"find_shop"}</tool_call>'
            '<tool_call>{"name":"count",'
            '"arguments":"{\\"upto\\": 3, \\"label\\": \\"7\\"}"}</tool_call>'
        ),
        "",
        BOTH,
    ),
    "hermes without arguments, cut before its end": (
        "hermes",
        '<tool_call>\n{"name": "count"}',
        "",
        (("count", {}),),
    ),
    "hermes, and words behind": (
        "hermes",
        '<tool_call>\n{"name": "count", "arguments": {}}\n</tool_call>\n\nI wait.',
        "I wait.",
        (("count", {}),),
    ),
    "qwen_xml": (
        "qwen_xml",
        (
            "Look:\n\n<tool_call>\n<function=find_shop>\n<parameter=city>\n北京\n</parameter>\n"
            "</function>\n"
            "</tool_call>\n<tool_call>\n<function=count>\n<parameter=upto>\n3\n</parameter>\n"
            "<parameter=label>\n7\n</parameter>\n</function>\n</tool_call>"
        ),
        "Look:",
        BOTH,
    ),
    "qwen_xml of several lines": (
        "qwen_xml",
        (
            "<tool_call>\n<function=count>\n<parameter=label>\nif a < b:\n    x\n\n</parameter>\n"
            '<parameter=words>\n["a", "b"]\n</parameter>\n</function>\n</tool_call>'
        ),
        "",
        (("count", {"label": "if a < b:\n    x\n", "words": ["a", "b"]}),),
    ),
    "glm_xml": (
        "glm_xml",
        (
            "\nI look.\n<tool_call>find_shop\n<arg_key>city</arg_key>\n"
            "<arg_value>北京</arg_value>\n"
            "</tool_call>\n<tool_call>count\n<arg_key>upto</arg_key>\n<arg_value>3</arg_value>\n"
            "<arg_key>label</arg_key>\n<arg_value>7</arg_value>\n</tool_call>"
        ),
        "\nI look.",
        BOTH,
    ),
    "glm_xml without arguments": (
        "glm_xml",
        "<tool_call>count</tool_call>",
        "",
        (("count", {}),),
    ),
    "llama3": (
        "llama3",
        (
            '{"name": "find_shop", "parameters": {"city": "北京"}}; '
            '{"name": "count", "parameters": {"upto": 3, "label": "7"}}'
        ),
        "",
        BOTH,
    ),
    "llama3 behind its mark": (
        "llama3",
        (
            'I look.<|python_tag|>{"type": "function", '
            '"name": "find_shop", "parameters": {"city": "北京"}}'
            ';{"name": "count", "parameters": {"upto": 3, "label": "7"}}'
        ),
        "I look.",
        BOTH,
    ),
    "mistral": (
        "mistral",
        (
            '[TOOL_CALLS] [{"name": "find_shop", "arguments": {"city": "北京"}, '
            '"id": "abc123def"}, '
            '{"name": "count", "arguments": {"upto": 3, "label": "7"}}]'
        ),
        "",
        BOTH,
    ),
    "mistral, newer": (
        "mistral",
        (
            'I look.[TOOL_CALLS]find_shop[ARGS]{"city": "北京"}'
            "[TOOL_CALLS]count[CALL_ID]abcdefghi[ARGS]"
            '{"upto": 3, "label": "7"}'
        ),
        "I look.",
        BOTH,
    ),
    "glm4": ("glm4", 'find_shop\n{"city": "北京"}', "", (FIND,)),
    "glm4, two": (
        "glm4",
        'find_shop\n{"city": "北京"}<|assistant|>count\n{"upto": 3, "label": "7"}',
        "",
        BOTH,
    ),
    "react": (
        "react",
        (
            'Thought: where\nAction: find_shop\nAction Input: {"city": "北京"}\n'
            'Action: count\nAction Input: {"upto": 3, "label": "7"}'
        ),
        "Thought: where",
        BOTH,
    ),
}
"""Format, what a model writes, what it says, what it calls."""
PLAIN = {
    "hermes": [
        "No call.",
        "a < b <tool_",
        '<tool_call>\n{"name": "count", "arguments": {"upto": }}\n</tool_call>',
        '<tool_call>\n{"name": "count", "arguments": {"upto": 1',
        '<tool_call>\n{"name": "count", "arguments": {}} and more\n</tool_call>',
        "<tool_call>\nnothing\n</tool_call> \n",
        '<tool_call>\n{"arguments": {}}\n</tool_call>',
        '<tool_call>\n{"name": "count", "arguments": [1]}\n</tool_call>',
        '<tool_call>{"name": "count", "arguments": {"a": "\n"}}</tool_call>',
        '<tool_call>{"name": "count", "arguments": {"a": ' + "[" * 70 + "]" * 70 + "}}</tool_call>",
    ],
    "qwen_xml": [
        "<tool_call>\n<function=count>\n<parameter=upto>\n3",
        "<tool_call>\n<function=count>\n3\n</function>\n</tool_call>",
        '<tool_call>\n{"name": "count"}\n</tool_call>',
    ],
    "glm_xml": [
        "<tool_call>count\n<arg_key>upto</arg_key>\n<arg_value>3",
        "<tool_call>\n</tool_call>",
        "<tool_call>count\n<arg_key>upto</arg_key>3</tool_call>",
    ],
    "llama3": [
        '{"name": "Bob", "parameters": {}}',
        '{"answer": 42}',
        ' {"name": "count", "age": 3}',
        'The call is {"name": "count", "parameters": {}}',
        "[1, 2]",
        "{",
    ],
    "mistral": [
        "[TOOL_CALL",
        "[TOOL_CALLS] nothing",
        '[TOOL_CALLS]count[ARGS]{"upto": 1',
        "[TOOL_CALLS] [3]",
    ],
    "glm4": ["\nHello.", "count on me", "count\nnothing", "find_shop", 'other\n{"a": 1}'],
    "react": [
        "Action: I run.",
        "My Action: count\nAction Input: {}",
        "Action: count\nAction Input: nothing",
        "Action: ",
    ],
}
"""What is no call, by format: all of it is said."""
CASES = [*GOLDEN, *((name, at) for name in PLAIN for at in range(len(PLAIN[name])))]


def text_of(case: Any) -> tuple[str, str]:
    if isinstance(case, str):
        return GOLDEN[case][:2]
    name, at = case
    return name, PLAIN[name][at]


def cut(name: str, pieces: list[str]) -> list[Part]:
    parser = ToolParser(FORMATS[name], TOOLS)
    return [part for piece in pieces for part in parser.push(piece)] + parser.end()


def plain(said: Said) -> tuple[str, list[tuple[str, str]]]:
    return said.text, [(call.name, call.arguments) for call in said.calls]


@pytest.mark.parametrize("case", GOLDEN)
def test_calls_are_read_from_what_a_model_writes(case: str) -> None:
    name, text, says, calls = GOLDEN[case]
    said = read_calls(FORMATS[name], text, TOOLS)
    assert said.text == says
    assert [(call.name, json.loads(call.arguments)) for call in said.calls] == list(calls)
    assert len({call.id for call in said.calls}) == len(calls)


@pytest.mark.parametrize("name", PLAIN)
def test_what_is_no_call_is_said_to_the_letter(name: str) -> None:
    for text in PLAIN[name]:
        assert plain(read_calls(FORMATS[name], text, TOOLS)) == (text, [])


@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_answer_that_is_cut_anywhere_is_read_as_whole(case: Any) -> None:
    name, text = text_of(case)
    whole = plain(read_calls(FORMATS[name], text, TOOLS))
    for at in range(1, len(text)):
        assert plain(put_together(cut(name, [text[:at], text[at:]]))) == whole
    assert plain(put_together(cut(name, list(text)))) == whole


PIECES = [
    *(text for _, text, _, _ in GOLDEN.values()),
    *(text for texts in PLAIN.values() for text in texts),
    *(mark for form in FORMATS.values() for mark in form.marks),
    *(" ", "\n", '{"name": "count", ', '"arguments": {', "}", '"', "\\", "Action:", "count", ";"),
]


@given(
    st.sampled_from(sorted(FORMATS)),
    st.lists(st.one_of(st.sampled_from(PIECES), st.text(max_size=5)), max_size=6),
    st.lists(st.integers(0, 400), max_size=8),
)
def test_no_cut_changes_an_answer_and_nothing_is_lost(
    name: str, written: list[str], places: list[int]
) -> None:
    text = "".join(written)
    cuts = [0, *sorted(min(place, len(text)) for place in places), len(text)]
    pieces = [text[start:end] for start, end in pairwise(cuts)]
    whole = read_calls(FORMATS[name], text, TOOLS)
    assert plain(put_together(cut(name, pieces))) == plain(whole)
    for call in whole.calls:
        assert isinstance(json.loads(call.arguments), dict)
    if not whole.calls:
        assert whole.text == text


def test_arguments_come_in_parts_behind_the_name() -> None:
    text = GOLDEN["hermes"][1]
    parts = cut("hermes", list(text))
    starts = [part for part in parts if isinstance(part, CallStart)]
    assert [(start.index, start.name) for start in starts] == [(0, "find_shop"), (1, "count")]
    first = [part.text for part in parts if isinstance(part, CallArguments) and part.index == 0]
    assert first == list('{"city": "北京"}')
    assert parts.index(Text("I")) < parts.index(starts[0])


def test_a_call_before_a_broken_one_is_kept() -> None:
    text = '[TOOL_CALLS] [{"name": "count", "arguments": {}}, {"name": 3}]'
    said = read_calls(FORMATS["mistral"], text, TOOLS)
    assert [call.name for call in said.calls] == ["count"]
    assert said.text == ', {"name": 3}]'


def test_a_call_behind_a_broken_one_is_found() -> None:
    good = '<tool_call>{"name": "count", "arguments": {}}</tool_call>'
    said = read_calls(FORMATS["hermes"], f"<tool_call>{{{good}", TOOLS)
    assert plain(said) == ("<tool_call>{", [("count", "{}")])


@pytest.mark.parametrize("family", NAMES)
def test_a_format_is_recognised_from_the_template(family: str) -> None:
    found = find_tool_format(build(source(family)), ())
    assert found is not None
    assert found.name == NAMES[family]


def test_a_format_is_recognised_from_the_tokens_where_the_template_writes_no_calls() -> None:
    bare = "{%- for m in messages %}{{- '<|im_start|>' + m.role + m.content + '<|im_end|>' }}"
    template = build(bare + "{%- endfor %}")
    assert find_tool_format(template, ()) is None
    found = find_tool_format(template, {"[TOOL_CALLS]"})
    assert found is FORMATS["mistral"]


def test_an_unknown_format_is_refused_with_the_list() -> None:
    with pytest.raises(RequestError) as caught:
        named_tool_format("pythonic")
    assert "hermes" in caught.value.hint


ARGUMENTS = [
    {},
    {"city": "北京"},
    {"upto": -3, "label": "7"},
    {"label": 'a "quoted"\n\\ line < & \t'},
    {"words": ["x", "海螺"], "deep": {"a": [1.5, None, True, {}]}, "label": ""},
]


@pytest.mark.parametrize("family", NAMES)
def test_what_a_template_writes_is_read_back(family: str) -> None:
    assert set(OURS) | set(THEIRS) <= {*NAMES, "gemma4_v5"}
    template = build(source(family))
    several = [*([each] for each in ARGUMENTS), ARGUMENTS[1:3]]
    tried = [_returns(template, FORMATS[NAMES[family]], each) for each in several]
    assert sum(tried) >= len(ARGUMENTS)


def _returns(template: Template, form: ToolFormat, given: list[dict[str, Any]]) -> int:
    """Count the ways in which the template writes calls; each must be read as it was given."""
    calls = [
        {**talks.call(at, ""), "function": {"name": "count", "arguments": arguments}}
        for at, arguments in enumerate(given, 1)
    ]
    done = 0
    for says in "", "I look.":
        answer = {"role": "assistant", "content": says, "tool_calls": calls}
        try:
            spelled = template.spell_answer([talks.QUESTION, answer], TOOLS)
        except DataError:
            continue
        done += 1
        said = read_calls(form, spelled.rpartition("</think>")[2].lstrip(), TOOLS)
        assert said.text == says
        assert [json.loads(call.arguments) for call in said.calls] == given
    return done
