"""Calls of tools are held to their schemas, in the format of each family."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import pytest

from tests.golden.test_tools import build, source
from tests.unit.inference.test_tool_calls import NAMES, TOOLS
from tests.vocabularies import MARKS, Vocabulary, accepts, special_ids
from tunesmith.errors import RequestError
from tunesmith.inference.structured import Calling, Forms, Outline
from tunesmith.inference.structured.forms import GrammarForm
from tunesmith.inference.tool_calls import FORMATS, find_tool_format, read_calls

STRICT = [TOOLS[0], {**TOOLS[1], "function": {**TOOLS[1]["function"]}}]
STRICT[1]["function"]["parameters"] = {
    "type": "object",
    "properties": {
        "upto": {"type": "integer", "minimum": 0, "maximum": 99},
        "label": {"type": "string", "maxLength": 5},
        "kind": {"type": "string", "enum": ["x", "海螺"]},
    },
    "required": ["upto"],
    "additionalProperties": False,
}
FIND = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}}
STRICT[0] = {
    "type": "function",
    "function": {
        "name": "find_shop",
        "parameters": {**FIND, "required": ["city"], "additionalProperties": False},
    },
}
SCHEMA_OF = {tool["function"]["name"]: tool["function"]["parameters"] for tool in STRICT}


@pytest.mark.parametrize("family", NAMES)
@pytest.mark.parametrize("marked", [False, True])
def test_whatever_is_drawn_is_a_call_of_a_tool(
    tokenizer: Vocabulary, forms: Forms, family: str, marked: bool
) -> None:
    found = find_tool_format(build(source(family)), ())
    assert found is not None
    specials = special_ids(tokenizer) if marked else {}
    if not marked and {*found.marks} & {*MARKS}:
        return  # they are special tokens of these vocabularies
    grammar = Outline(calling=Calling(found, STRICT, many=True)).grammar(specials)
    for seed in range(8):
        text = write_first(forms.build(grammar), tokenizer, seed)
        said = read_calls(found, text, STRICT)
        assert said.text == ""
        assert said.calls
        for call in said.calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMA_OF[call.name])


def write_first(form: GrammarForm, tokenizer: Vocabulary, seed: int) -> str:
    """Write calls until the answer may end; a model that draws would call for ever."""
    draw, ids = random.Random(seed), []
    while not form.is_over():
        mask = form.mask()
        if mask[int(tokenizer.eos_token_id or 0)]:
            break
        ids.append(draw.choice(mask.nonzero().flatten().tolist()))
        form.take(ids[-1])
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


CALLED = {
    "hermes": '<tool_call>\n{"name": "count", "arguments": {"upto": UPTO}}\n</tool_call>',
    "glm_xml": "<tool_call>count\n<arg_key>upto</arg_key>\n<arg_value>UPTO</arg_value>\n"
    "</tool_call>",
    "qwen_xml": "<tool_call>\n<function=count>\n<parameter=upto>\nUPTO\n</parameter>\n"
    "</function>\n</tool_call>",
    "llama3": '{"name": "count", "parameters": {"upto": UPTO}}',
    "mistral": '[TOOL_CALLS] [{"name": "count", "arguments": {"upto": UPTO}}]',
    "glm4": 'count\n{"upto": UPTO}',
    "react": 'Action: count\nAction Input: {"upto": UPTO}',
}


@pytest.mark.parametrize("name", CALLED)
def test_strict_tools_may_be_called_or_not_but_never_loosely(
    tokenizer: Vocabulary, forms: Forms, name: str
) -> None:
    form, specials = FORMATS[name], special_ids(tokenizer)
    grammar = Outline(calling=Calling(form, STRICT, many=True, free=True)).grammar(specials)

    def may(text: str) -> bool:
        return accepts(forms.build(grammar), tokenizer, text)

    assert may("Hello, 海螺.")
    assert may(CALLED[name].replace("UPTO", "7"))
    assert not may(CALLED[name].replace("UPTO", '"7"'))
    if not form.bare:
        assert may(f"I look.\n{CALLED[name].replace('UPTO', '7')}")
        assert not may(f"I look.\n{CALLED[name].replace('UPTO', '700')}")


def test_a_tool_that_cannot_be_held_to_is_named() -> None:
    bad = {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}
    with pytest.raises(RequestError) as caught:
        Outline(calling=Calling(FORMATS["hermes"], [TOOLS[0], bad], many=True)).grammar({})
    assert caught.value.where == "tools[1].function.parameters"
    loose = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(RequestError, match="properties of an object"):
        Outline(calling=Calling(FORMATS["hermes"], [loose], many=True)).grammar({})
    odd = {"type": "function", "function": {"name": "two words"}}
    with pytest.raises(RequestError) as caught:
        Outline(calling=Calling(FORMATS["hermes"], [odd], many=True)).grammar({})
    assert caught.value.where == "tools[0].function.name"


TAGGED_TEXT = {
    "glm_xml": "<tool_call>count\n<arg_key>a</arg_key>\n<arg_value>TEXT</arg_value>\n</tool_call>",
    "qwen_xml": "<tool_call>\n<function=count>\n<parameter=a>\nTEXT\n</parameter>\n"
    "</function>\n</tool_call>",
}
TEXTS: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"const": "海螺"}, ["海螺"], ["海"]),
    ({"pattern": "^a+$", "maxLength": 3}, ["a", "aaa"], ["aaaa", "b", ""]),
    ({"pattern": "b/"}, ["ab/c"], ["ab"]),
    ({"minLength": 2}, ["ab", "a\n<"], ["a"]),
    ({"type": ["string", "null"], "maxLength": 2}, ["ab", "null"], ["abc"]),
]


@pytest.mark.parametrize("name", TAGGED_TEXT)
@pytest.mark.parametrize("at", range(len(TEXTS)))
def test_texts_between_tags_are_held_to_what_is_said_of_them(
    tokenizer: Vocabulary, forms: Forms, name: str, at: int
) -> None:
    schema, fine, bad = TEXTS[at]
    parameters = {"properties": {"a": {"type": "string", **schema}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "count", "parameters": parameters}}
    calling = Calling(FORMATS[name], [tool], many=False)
    grammar = Outline(calling=calling).grammar(special_ids(tokenizer))
    for text in [*fine, *bad]:
        written = TAGGED_TEXT[name].replace("TEXT", text)
        assert accepts(forms.build(grammar), tokenizer, written) is (text in fine), text
