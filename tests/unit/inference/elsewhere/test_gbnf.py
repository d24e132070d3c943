"""A GGUF whose tokens llguidance would read otherwise is held to forms by llama.cpp's grammars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

from tests.unit.export.gguf.test_vocabulary import make_chat, sentencepiece
from tests.unit.inference.hearing import hear
from tunesmith.errors import RequestError
from tunesmith.export.gguf.write import write_gguf
from tunesmith.inference.engine import Request
from tunesmith.inference.llama_cpp import LlamaCpp, LlamaCppOptions
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.structured import Calling, Outline, Wanted
from tunesmith.inference.thinking import Thinking
from tunesmith.inference.tool_calls import named_tool_format

PROMPT = [1, 40, 50, 60]
NODE = {
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]}},
    "required": ["next"],
}
OPTIONAL = {
    "type": "object",
    "properties": {
        "a b": {"enum": ["x y", '你 "好"', None]},
        "n": {"type": "integer"},
        "l": {"type": "array", "items": {"type": ["boolean", "null"]}, "maxItems": 2},
    },
}
SCHEMAS: dict[str, dict[str, Any]] = {
    "required": {**OPTIONAL, "required": ["a b", "n", "l"], "additionalProperties": False},
    "optional": OPTIONAL,
    "some": {**OPTIONAL, "required": ["n"]},
    "unnamed": {"type": "object", "required": ["k"], "additionalProperties": {"type": "null"}},
    "text": {"type": "string", "minLength": 2, "maxLength": 9},
    "list": {"items": {"const": "a\n b"}, "minItems": 2, "maxItems": 3},
    "one": {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 1},
    "none": {"type": "string", "maxLength": 0},
    "empty": {"type": "object", "additionalProperties": False},
    "nested": {"$defs": {"node": NODE}, "$ref": "#/$defs/node"},
}
FEW = ("optional", "unnamed", "list", "one", "none", "empty")
"""Schemas that allow one text, or a few."""


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaCpp]:
    folder = tmp_path_factory.mktemp("llama2")
    named = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    chat = make_chat(folder / "m", sentencepiece(prefixed=True), **named)
    write_gguf(chat, folder / "m.gguf", "f16")
    found = LlamaCpp(folder / "m.gguf", LlamaCppOptions(slots=1, threads=1))
    yield found
    found.close()


def say(engine: LlamaCpp, wanted: Wanted, seed: int) -> str:
    (form,) = engine.speech.forms(Outline(wanted), 1)
    sampling = Sampling(max_tokens=200, temperature=1.0, seed=seed)
    said = hear(engine, Request(PROMPT, sampling, form=form))
    assert said.finish == "stop"
    return str(said.text)


@pytest.mark.parametrize("name", SCHEMAS)
def test_json_is_what_its_schema_says(engine: LlamaCpp, name: str) -> None:
    schema, told = SCHEMAS[name], set()
    grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema))
    for seed in range(4):
        said = say(engine, Wanted("json", schema, "x"), seed)
        matcher = LLMatcher(LLTokenizer("byte"), grammar)
        assert matcher.consume_tokens([*said.encode()]), said
        assert matcher.is_accepting(), said
        told.add(said)
    assert len(told) > 1 or name in FEW


@pytest.mark.parametrize(
    "schema",
    [
        {"items": {"items": {"type": "integer"}}},
        {"items": {"type": "string", "maxLength": 300}},
        {"type": "object", "additionalProperties": {"items": {"items": {"minLength": 2}}}},
        {"items": {"type": "object", "additionalProperties": {"items": {"type": "null"}}}},
    ],
)
def test_bounds_may_lie_in_one_another(engine: LlamaCpp, schema: dict[str, Any]) -> None:
    (form,) = engine.speech.forms(Outline(Wanted("json", schema, "x")), 1)
    request = Request(PROMPT, Sampling(max_tokens=8, seed=1), form=form)
    assert hear(engine, request).text[0] in "[{"


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ((True, True, True), '{"a b": null, "n": 7, "l": []}'),
        ((False, True, True), '{"n": -70, "l": [true, null]}'),
        ((True, False, True), '{"a b": "x y", "l": [false]}'),
        ((False, False, True), '{"l": []}'),
        ((True, False, False), '{"a b": "你 \\"好\\""}'),
        ((False, False, False), "{}"),
    ],
)
def test_properties_that_may_be_missing_may_be_there(
    engine: LlamaCpp, given: tuple[bool, ...], wanted: str
) -> None:
    assert [name in json.loads(wanted) for name in OPTIONAL["properties"]] == list(given)
    (form,) = engine.speech.forms(Outline(Wanted("json", OPTIONAL, "x")), 1)
    assert reads(form.fields["grammar"], wanted)
    for wrong in (f"{wanted} ", wanted.replace(", ", ","), f" {wanted}", wanted[:-1]):
        assert wrong == wanted or not reads(form.fields["grammar"], wrong)


def reads(grammar: str, text: str) -> bool:
    """Let another reader of GBNF say whether a text is of a grammar."""
    matcher = LLMatcher(LLTokenizer("byte"), gbnf_to_lark(grammar))
    return bool(matcher.consume_tokens([*text.encode()])) and bool(matcher.is_accepting())


def test_choices_and_grammars_are_kept_to_with_their_blanks(engine: LlamaCpp) -> None:
    choices = ["the quick brown", '你好 "x"\n\\ y', "user  assistant"]
    assert {say(engine, Wanted("choice", choices, "x"), seed) for seed in range(3)} <= {*choices}
    for choice in (choices[1], "a\fb \b\\f"):
        assert say(engine, Wanted("choice", [choice], "x"), 1) == choice
    grammar = 'root ::= " no " [0-9]{2} "!"\n'
    said = say(engine, Wanted("grammar", grammar, "x"), 1)
    assert (said[:4], said[4:6].isdigit(), said[6:]) == (" no ", True, "!")


@pytest.mark.parametrize(
    ("outline", "reason"),
    [
        (Outline(Wanted("regex", "[a-z]+", "regex")), "no patterns"),
        (Outline(Wanted("grammar", "start: /a/", "grammar")), "no Lark"),
        (Outline(Wanted("choice", ["a"], "x"), thinking=(Thinking("<t>", "</t>"), True)), "though"),
        (
            Outline(
                calling=Calling(
                    named_tool_format("hermes"), [{"function": {"name": "f"}}], many=False
                )
            ),
            "no calls",
        ),
        (Outline(Wanted("json", {"type": "string", "pattern": "a+"}, "x")), "with `pattern`"),
        (Outline(Wanted("json", {"type": "integer", "minimum": 3}, "x")), "with `minimum`"),
        (Outline(Wanted("json", {"minLength": 3000, "type": "string"}, "x")), "over 1,000"),
        (
            Outline(Wanted("json", {"anyOf": [{"type": "null"}], "minItems": 1}, "x")),
            "`anyOf` beside `minItems`",
        ),
    ],
)
def test_what_its_grammars_have_no_words_for_is_refused_with_its_reason(
    engine: LlamaCpp, outline: Outline, reason: str
) -> None:
    with pytest.raises(RequestError, match="reads the blank that begins a token") as caught:
        engine.speech.forms(outline, 1)
    assert reason in caught.value.message
