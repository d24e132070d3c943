"""Answers are held to a form by whatever vocabulary a model has."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema
import pytest
from pydantic import BaseModel, ConfigDict, Field, RootModel
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import tiny
from tests.golden.test_tools import build, source
from tests.unit.inference.test_tool_calls import NAMES, TOOLS
from tunesmith.errors import RequestError
from tunesmith.inference.structured import Calling, Forms, Wanted, write_grammar
from tunesmith.inference.structured.forms import GrammarForm
from tunesmith.inference.thinking import Thinking
from tunesmith.inference.tool_calls import FORMATS, find_tool_format, read_calls

MARKS = ["[TOOL_CALLS]", "<|assistant|>", "<|python_tag|>", "<tool_call>", "</tool_call>"]
THINKING = Thinking("<think>", "</think>")
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


def byte_level(folder: Path) -> PreTrainedTokenizerFast:
    tiny.make_tokenizer(folder)
    return PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"),
        eos_token="<|endoftext|>",
        additional_special_tokens=MARKS,
    )


def like_sentencepiece() -> PreTrainedTokenizerFast:
    """Blanks are letters of their own, and what is in no token is spelled by its bytes."""
    backend = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    specials = ["<unk>", "</s>", *MARKS, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=specials, show_progress=False)
    backend.train_from_iterator([*tiny.TEXTS * 3, '{"name": "a", "age": 3}'], trainer)
    backend = Tokenizer.from_str(_plain_bytes(backend.to_str()))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="</s>", additional_special_tokens=MARKS
    )


def of_pieces() -> PreTrainedTokenizerFast:
    """A vocabulary of likely pieces, as T5 has, which llguidance does not read itself."""
    backend = Tokenizer(models.Unigram(byte_fallback=True))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    backend.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="never"), decoders.Fuse()]
    )
    texts = [*tiny.TEXTS * 3, '{"name": "a", "age": 3}']
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=["<unk>", "</s>", *MARKS], unk_token="<unk>"
    )
    backend.train_from_iterator(texts, trainer)
    read = json.loads(backend.to_str())
    read["model"]["vocab"] += [[f"<0x{byte:02X}>", -20.0] for byte in range(256)]
    read["model"]["byte_fallback"] = True
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(read)),
        eos_token="</s>",
        additional_special_tokens=MARKS,
    )


def _plain_bytes(spelled: str) -> str:
    """Let the bytes be ordinary tokens, as they are in such vocabularies."""
    read = json.loads(spelled)
    read["added_tokens"] = [
        each for each in read["added_tokens"] if not each["content"].startswith("<0x")
    ]
    return json.dumps(read)


@pytest.fixture(scope="module", params=["bytes", "sentencepiece", "pieces"])
def tokenizer(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> PreTrainedTokenizerFast:
    if request.param == "bytes":
        return byte_level(tmp_path_factory.mktemp("bytes"))
    return of_pieces() if request.param == "pieces" else like_sentencepiece()


@pytest.fixture(scope="module")
def forms(tokenizer: PreTrainedTokenizerFast) -> Forms:
    return Forms(tokenizer, [int(tokenizer.eos_token_id or 0)])


def special_ids(tokenizer: PreTrainedTokenizerFast) -> dict[str, int]:
    return {mark: int(tokenizer.convert_tokens_to_ids(mark)) for mark in MARKS}  # type: ignore[arg-type]


def write(form: GrammarForm, tokenizer: PreTrainedTokenizerFast, seed: int, most: int = 400) -> str:
    """Write as a model that knows nothing would: any token that is allowed."""
    draw, ids = random.Random(seed), []
    while len(ids) < most and not form.is_over():
        allowed = form.mask().nonzero().flatten().tolist()
        token = draw.choice(allowed)
        if token == tokenizer.eos_token_id:
            break
        ids.append(token)
        form.take(token)
    assert len(ids) < most
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def accepts(form: GrammarForm, tokenizer: PreTrainedTokenizerFast, text: str) -> bool:
    """Whether a text may be written, and the answer may end there."""
    for token in tokenizer.encode(text, add_special_tokens=False):
        if not form.mask()[token]:
            return False
        form.take(token)
    return form.is_over() or bool(form.mask()[int(tokenizer.eos_token_id or 0)])


@pytest.mark.parametrize("schema", SCHEMAS, ids=range(len(SCHEMAS)))
def test_whatever_is_drawn_is_valid_json_of_the_schema(
    tokenizer: PreTrainedTokenizerFast, forms: Forms, schema: Any
) -> None:
    grammar = write_grammar(Wanted("json", schema, "x"), None, None, {})
    texts = {write(forms.build(grammar), tokenizer, seed) for seed in range(12)}
    for text in texts:
        jsonschema.validate(json.loads(text), schema)
    assert len(texts) > 1


PATTERN = r"\d{3}-[a-z]{1,4}/(海|螺)"


def test_whatever_is_drawn_matches_the_pattern(
    tokenizer: PreTrainedTokenizerFast, forms: Forms
) -> None:
    grammar = write_grammar(Wanted("regex", PATTERN, "x"), None, None, {})
    for seed in range(12):
        assert re.fullmatch(PATTERN, write(forms.build(grammar), tokenizer, seed), re.ASCII)


def test_whatever_is_drawn_is_one_of_the_choices(
    tokenizer: PreTrainedTokenizerFast, forms: Forms
) -> None:
    choices = ["ja", "nein", '也许 "so"', "a\nb"]
    grammar = write_grammar(Wanted("choice", choices, "x"), None, None, {})
    drawn = {write(forms.build(grammar), tokenizer, seed) for seed in range(40)}
    assert drawn == {*choices}


@pytest.mark.parametrize("grammar", ['start: "x" N\nN: /[0-9]{1,3}/', 'root ::= "x" [0-9]'])
def test_grammars_are_read_in_two_dialects(
    tokenizer: PreTrainedTokenizerFast, forms: Forms, grammar: str
) -> None:
    written = write_grammar(Wanted("grammar", grammar, "x"), None, (THINKING, False), {})
    assert accepts(forms.build(written), tokenizer, "x7")
    assert accepts(forms.build(written), tokenizer, "<think>so</think>\n\nx7")
    assert not accepts(forms.build(written), tokenizer, "y7")


@pytest.mark.parametrize("opened", [False, True])
def test_a_thought_comes_first_and_is_free(
    tokenizer: PreTrainedTokenizerFast, forms: Forms, opened: bool
) -> None:
    wanted = Wanted("json", PERSON, "x")
    grammar = write_grammar(wanted, None, (THINKING, opened), {})
    says = '{"name": "海", "age": 3, "kind": null}'
    thought = "\nwhich {}\n</think>\n\n"
    assert accepts(forms.build(grammar), tokenizer, says) is not opened
    assert accepts(forms.build(grammar), tokenizer, f"<think>{thought}{says}")
    assert not accepts(forms.build(grammar), tokenizer, f"<think>{thought}or not")
    assert accepts(forms.build(grammar), tokenizer, f"{thought}{says}") is opened


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
    tokenizer: PreTrainedTokenizerFast, forms: Forms, family: str, marked: bool
) -> None:
    found = find_tool_format(build(source(family)), ())
    assert found is not None
    specials = special_ids(tokenizer) if marked else {}
    if not marked and {*found.marks} & {*MARKS}:
        return  # they are special tokens of these vocabularies
    grammar = write_grammar(None, Calling(found, STRICT, many=True), None, specials)
    for seed in range(8):
        text = write_first(forms.build(grammar), tokenizer, seed)
        said = read_calls(found, text, STRICT)
        assert said.text == ""
        assert said.calls
        for call in said.calls:
            jsonschema.validate(json.loads(call.arguments), SCHEMA_OF[call.name])


def write_first(form: GrammarForm, tokenizer: PreTrainedTokenizerFast, seed: int) -> str:
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
    tokenizer: PreTrainedTokenizerFast, forms: Forms, name: str
) -> None:
    form, specials = FORMATS[name], special_ids(tokenizer)
    grammar = write_grammar(None, Calling(form, STRICT, many=True, free=True), None, specials)

    def may(text: str) -> bool:
        return accepts(forms.build(grammar), tokenizer, text)

    assert may("Hello, 海螺.")
    assert may(CALLED[name].replace("UPTO", "7"))
    assert not may(CALLED[name].replace("UPTO", '"7"'))
    if not form.bare:
        assert may(f"I look.\n{CALLED[name].replace('UPTO', '7')}")
        assert not may(f"I look.\n{CALLED[name].replace('UPTO', '700')}")


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
    tokenizer: PreTrainedTokenizerFast, forms: Forms
) -> None:
    schema = Pet.model_json_schema()
    assert "oneOf" in schema
    grammar = write_grammar(Wanted("json", schema, "x"), None, None, {})
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
        write_grammar(Wanted(kind, value, "the.field"), None, None, {})
    assert caught.value.where == "the.field"
    assert says in caught.value.message
    assert caught.value.hint


def test_a_schema_that_is_nested_too_deep_is_refused() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(5000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(RequestError, match="nested"):
        Wanted("json", schema, "x").check()


def test_a_tool_that_cannot_be_held_to_is_named() -> None:
    bad = {"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}
    with pytest.raises(RequestError) as caught:
        write_grammar(None, Calling(FORMATS["hermes"], [TOOLS[0], bad], many=True), None, {})
    assert caught.value.where == "tools[1].function.parameters"
    loose = {"type": "function", "function": {"name": "f", "parameters": {"type": "string"}}}
    with pytest.raises(RequestError, match="properties of an object"):
        write_grammar(None, Calling(FORMATS["hermes"], [loose], many=True), None, {})
    odd = {"type": "function", "function": {"name": "two words"}}
    with pytest.raises(RequestError) as caught:
        write_grammar(None, Calling(FORMATS["hermes"], [odd], many=True), None, {})
    assert caught.value.where == "tools[0].function.name"


def test_many_choices_are_no_more_work_than_few(
    tokenizer: PreTrainedTokenizerFast, forms: Forms
) -> None:
    choices = [f"choice {at}" for at in range(4000)]
    grammar = write_grammar(Wanted("choice", choices, "x"), None, None, {})
    assert write(forms.build(grammar), tokenizer, 1) in choices


def test_a_form_that_becomes_too_large_says_so(
    tokenizer: PreTrainedTokenizerFast, forms: Forms
) -> None:
    many = {f"k{at}": {"type": "null"} for at in range(700)}
    wanted = Wanted("json", {"type": "object", "properties": many}, "x")
    with pytest.raises(RequestError, match="cannot be held to its form") as caught:
        write(forms.build(write_grammar(wanted, None, None, {})), tokenizer, 1)
    assert caught.value.hint == "ask for a simpler form"


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
    tokenizer: PreTrainedTokenizerFast, forms: Forms, name: str, at: int
) -> None:
    schema, fine, bad = TEXTS[at]
    parameters = {"properties": {"a": {"type": "string", **schema}}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "count", "parameters": parameters}}
    calling = Calling(FORMATS[name], [tool], many=False)
    grammar = write_grammar(None, calling, None, special_ids(tokenizer))
    for text in [*fine, *bad]:
        written = TAGGED_TEXT[name].replace("TEXT", text)
        assert accepts(forms.build(grammar), tokenizer, written) is (text in fine), text


def test_blanks_have_an_end(tokenizer: PreTrainedTokenizerFast, forms: Forms) -> None:
    grammar = write_grammar(Wanted("json", FIND, "x"), None, None, {})
    assert accepts(forms.build(grammar), tokenizer, '{\n  "city": "a"\n}')
    assert not accepts(forms.build(grammar), tokenizer, '{\n\n\n\n"city": "a"}')
