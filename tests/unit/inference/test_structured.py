"""Answers are held to a form by whatever vocabulary a model has."""

from __future__ import annotations

import copy
import json
import re
import weakref
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel

from tests.vocabularies import Vocabulary, accepts, write
from tunesmith.errors import RequestError
from tunesmith.inference.structured import Forms, Outline, Wanted
from tunesmith.inference.structured.forms import read_vocabulary
from tunesmith.inference.thinking import Thinking

THINKING = Thinking("<think>", "</think>")
FIND = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}}
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "kind": {"enum": ["a", "海螺", 3, None]},
        "tags": {"type": "array", "items": {"type": "boolean"}, "maxItems": 3},
        "when": {"type": "string", "pattern": r"^\d{4}-\d{2}$"},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}
SCHEMAS: list[Any] = [
    PERSON,
    {"type": "array", "items": {"type": "integer", "minimum": -3, "maximum": 9}, "maxItems": 4},
    {"anyOf": [{"type": "null"}, {"const": "ja"}, {"type": "array", "maxItems": 0}]},
    {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"next": {"$ref": "#/$defs/tree"}, "at": {"enum": [0, 1]}},
                "required": ["at"],
                "additionalProperties": False,
            }
        },
        "$ref": "#/$defs/tree",
    },
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_whatever_is_drawn_is_valid_json_of_the_schema(
    tokenizer: Vocabulary, forms: Forms, schema: Any
) -> None:
    grammar = Outline(Wanted("json", schema, "x")).grammar({})
    texts = {write(forms.build(grammar), tokenizer, seed) for seed in range(12)}
    for text in texts:
        jsonschema.validate(json.loads(text), schema)
    assert len(texts) > 1


PATTERN = r"\d{3}-[a-z]{1,4}/(海|螺)"


def test_whatever_is_drawn_matches_the_pattern(tokenizer: Vocabulary, forms: Forms) -> None:
    grammar = Outline(Wanted("regex", PATTERN, "x")).grammar({})
    for seed in range(12):
        assert re.fullmatch(PATTERN, write(forms.build(grammar), tokenizer, seed), re.ASCII)


def test_whatever_is_drawn_is_one_of_the_choices(tokenizer: Vocabulary, forms: Forms) -> None:
    choices = ["ja", "nein", '也许 "so"', "a\nb"]
    grammar = Outline(Wanted("choice", choices, "x")).grammar({})
    drawn = {write(forms.build(grammar), tokenizer, seed) for seed in range(40)}
    assert drawn == {*choices}


@pytest.mark.parametrize("grammar", ['start: "x" N\nN: /[0-9]{1,3}/', 'root ::= "x" [0-9]'])
def test_grammars_are_read_in_two_dialects(
    tokenizer: Vocabulary, forms: Forms, grammar: str
) -> None:
    written = Outline(Wanted("grammar", grammar, "x"), thinking=(THINKING, False)).grammar({})
    assert accepts(forms.build(written), tokenizer, "x7")
    assert accepts(forms.build(written), tokenizer, "<think>so</think>\n\nx7")
    assert not accepts(forms.build(written), tokenizer, "y7")


@pytest.mark.parametrize("opened", [False, True])
def test_a_thought_comes_first_and_is_free(
    tokenizer: Vocabulary, forms: Forms, opened: bool
) -> None:
    wanted = Wanted("json", PERSON, "x")
    grammar = Outline(wanted, thinking=(THINKING, opened)).grammar({})
    says = '{"name": "海", "age": 3, "kind": null}'
    thought = "\nwhich {}\n</think>\n\n"
    assert accepts(forms.build(grammar), tokenizer, says) is not opened
    assert accepts(forms.build(grammar), tokenizer, f"<think>{thought}{says}")
    assert not accepts(forms.build(grammar), tokenizer, f"<think>{thought}or not")
    assert accepts(forms.build(grammar), tokenizer, f"{thought}{says}") is opened


class Cat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["cat"]
    lives: Literal[7, 9]


class Dog(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: Literal["dog"]
    good: bool


class Pet(RootModel[Annotated[Cat | Dog, Field(discriminator="kind")]]):
    pass


def test_alternatives_that_a_field_keeps_apart_are_drawn(
    tokenizer: Vocabulary, forms: Forms
) -> None:
    schema = Pet.model_json_schema()
    assert "oneOf" in schema
    grammar = Outline(Wanted("json", schema, "x")).grammar({})
    drawn = [Pet.model_validate_json(write(forms.build(grammar), tokenizer, n)) for n in range(20)]
    assert {type(pet.root) for pet in drawn} == {Cat, Dog}


REFUSED: list[tuple[str, Any, str]] = [
    ("json", {"type": "object", "not": {"type": "null"}}, "not"),
    ("json", {"type": "strin"}, "strin"),
    ("json", {"oneOf": [{"type": "string"}, {"maxLength": 3}]}, "oneOf"),
    ("json", {"$ref": "http://example.com/x"}, "example.com"),
    ("json", {"type": "string", "pattern": "("}, "regex"),
    ("json", [1], "object"),
    ("json", {"enum": ["x" * 300_000]}, "bytes"),
    ("regex", "(a", "regex"),
    ("regex", "(?<=a)b", "look"),
    ("choice", [], "nothing"),
    ("choice", ["a", ""], "nothing"),
    ("grammar", "start x", "start"),
    ("grammar", 'root ::= "', ""),
]


@pytest.mark.parametrize(("kind", "value", "says"), REFUSED)
def test_what_cannot_be_held_to_is_refused_with_its_field(kind: Any, value: Any, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        Outline(Wanted(kind, value, "the.field")).grammar({})
    assert caught.value.where == "the.field"
    assert says in caught.value.message
    assert caught.value.hint


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RequestError, match="nested"):
        Wanted("json", schema, "x").check()


def test_many_choices_are_no_more_work_than_few(tokenizer: Vocabulary, forms: Forms) -> None:
    choices = [f"choice {at}" for at in range(4000)]
    grammar = Outline(Wanted("choice", choices, "x")).grammar({})
    assert write(forms.build(grammar), tokenizer, 1) in choices


def test_a_form_that_becomes_too_large_says_so(tokenizer: Vocabulary, forms: Forms) -> None:
    many = {f"k{at}": {"type": "null"} for at in range(700)}
    wanted = Wanted("json", {"type": "object", "properties": many}, "x")
    with pytest.raises(RequestError, match="cannot be held to its form") as caught:
        write(forms.build(Outline(wanted).grammar({})), tokenizer, 1)
    assert caught.value.hint == "ask for a simpler form"


def test_blanks_have_an_end(tokenizer: Vocabulary, forms: Forms) -> None:
    grammar = Outline(Wanted("json", FIND, "x")).grammar({})
    assert accepts(forms.build(grammar), tokenizer, '{\n  "city": "a"\n}')
    assert not accepts(forms.build(grammar), tokenizer, '{\n\n\n\n"city": "a"}')


def test_a_vocabulary_is_read_once_for_equal_tokenizers_and_forgotten_with_the_last(
    tokenizer: Vocabulary,
) -> None:
    ends = (int(tokenizer.eos_token_id or 0), 3)
    held = [read_vocabulary(each, ends) for each in (tokenizer, copy.deepcopy(tokenizer))]
    assert held[0] is held[1]
    assert read_vocabulary(tokenizer, (1,)) is not held[0]
    gone = weakref.ref(held[0])
    held.clear()
    assert gone() is None
