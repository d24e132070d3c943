"""A model of random weights answers in the form that OpenAI's client asks for, in each engine."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Literal

import jsonschema
import openai
import pytest
from pydantic import BaseModel
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.golden import talks
from tests.unit.inference.test_structured import PATTERN, PERSON, SCHEMAS
from tests.unit.serving.spoken import connected
from tunesmith.export.gguf.write import write_gguf
from tunesmith.inference.batching.build import build_engine
from tunesmith.inference.engine import Engine
from tunesmith.inference.llama_cpp import LlamaCpp, LlamaCppOptions
from tunesmith.inference.remote import Remote, RemoteOptions
from tunesmith.inference.vllm import Vllm, VllmOptions
from tunesmith.models.chat import find_subject, load_chat_model
from tunesmith.models.tokenizer import load_tokenizer
from tunesmith.settings import read_settings
from tunesmith.templates import named_template

SHAPES = {"batching": "qwen3", "generate": "gpt2"}
ASKED: list[Any] = [{"role": "user", "content": "who is it?"}]
COUNT: Any = {
    "type": "function",
    "function": {
        "name": "count",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"upto": {"type": "integer", "minimum": 0, "maximum": 9}},
            "required": ["upto"],
            "additionalProperties": False,
        },
    },
}
FIND: Any = {
    "type": "function",
    "function": {
        "name": "find",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Rom", "北京"]}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


SHOP: dict[str, Any] = {
    "$defs": {
        "place": {
            "type": "object",
            "properties": {
                "town": {"enum": ["北京", "Köln", "São Paulo"]},
                "at": {
                    "type": "array",
                    "items": {"enum": [0, -7.5, 48.137]},  # of numbers at large, digits have no end
                    "minItems": 2,
                    "maxItems": 2,
                },
            },
            "required": ["town"],
            "additionalProperties": False,
        }
    },
    "type": "object",
    "properties": {
        "名字": {"type": "string", "minLength": 1, "maxLength": 8},
        "place": {"$ref": "#/$defs/place"},
        "kind": {"anyOf": [{"const": "shop"}, {"type": "null"}, {"type": "boolean"}]},
        "seats": {"type": "integer", "minimum": -3, "maximum": 120},
        "others": {"type": "array", "items": {"$ref": "#/$defs/place"}, "maxItems": 1},
    },
    "required": ["名字", "place", "seats"],
    "additionalProperties": False,
}


@contextmanager
def answering(kind: str, folder: Path) -> Iterator[Engine]:
    """Let an engine of a kind answer with a model of random weights."""
    template = folder / "template.jinja"  # a model that draws would think for ever
    thoughts = re.compile(r"\{%- if message\['reasoning_content.*?endif %}", re.DOTALL)
    template.write_text(thoughts.sub("", named_template("chatml")), "utf-8")
    shape = SHAPES.get(kind, "qwen3")
    room = {"n_positions": 1024, "max_position_embeddings": 1024}
    if kind == "vllm":
        room |= {"head_dim": 64}  # it has no smaller ones
    model = tiny.make_model(folder / "m", shape, seed=5, template=str(template), **room)
    if kind == "llama.cpp":
        engine = _llama_cpp(model)
    elif kind == "vllm":
        engine = _vllm(model)
    else:
        built = build_engine(model, precision="fp32", device="cpu")
        assert kind in (built.kind, "remote")
        engine = built.engine
    with closing(engine):
        yield engine


def _llama_cpp(model: Path) -> Engine:
    file = model.with_suffix(".gguf")
    write_gguf(load_chat_model(model, precision="fp32", device="cpu"), file, "f32")
    return LlamaCpp(file, LlamaCppOptions(threads=1))


def _vllm(model: Path) -> Engine:
    if read_settings().vllm_python is None:
        pytest.skip("set TUNESMITH_VLLM_PYTHON to the Python of an environment with vLLM")
    told = ("--dtype", "float32", "--enforce-eager")
    return Vllm(find_subject(model), VllmOptions(rows=4, arguments=told))


@pytest.fixture(
    scope="module",
    params=[*SHAPES, "llama.cpp", "remote", pytest.param("vllm", marks=pytest.mark.proof)],
)
def client(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[openai.OpenAI]:
    folder = tmp_path_factory.mktemp("forms")
    with answering(request.param, folder) as engine, connected(engine) as near:
        if request.param != "remote":
            yield near
            return
        with connected(Remote(RemoteOptions(str(near.base_url)))) as far:
            yield far


def ask(client: openai.OpenAI, seed: int = 0, **body: Any) -> Any:
    """Let the model draw freely: only the form keeps it in order."""
    given: Any = {"model": "model", "messages": ASKED, "temperature": 1.0, "max_tokens": 300}
    (choice,) = client.chat.completions.create(**{**given, "seed": seed, **body}).choices
    return choice


@pytest.mark.parametrize("schema", [*SCHEMAS, SHOP], ids=[*range(len(SCHEMAS)), "shop"])
def test_answers_are_json_of_the_schema(client: openai.OpenAI, schema: Any) -> None:
    named = {"name": "x", "schema": schema, "strict": True}
    form = {"type": "json_schema", "json_schema": named}
    said = [ask(client, seed, response_format=form, max_tokens=900) for seed in range(2)]
    for choice in said:
        assert choice.finish_reason == "stop"
        jsonschema.validate(json.loads(choice.message.content), schema)


def test_json_mode_gives_an_object(client: openai.OpenAI) -> None:
    choice = ask(client, response_format={"type": "json_object"}, temperature=0, max_tokens=40)
    found = json.loads(choice.message.content) if choice.finish_reason == "stop" else None
    assert isinstance(found, dict) or choice.message.content.startswith("{")


def test_the_client_reads_answers_by_a_class(client: openai.OpenAI) -> None:
    class Found(BaseModel):
        at: Literal["Rom", "海螺"]
        fine: bool

    answer = client.chat.completions.parse(
        model="model", messages=ASKED, response_format=Found, temperature=1.0, seed=1
    )
    assert isinstance(answer.choices[0].message.parsed, Found)


@pytest.mark.parametrize(
    "body",
    [{"structured_outputs": {"regex": PATTERN}}, {"guided_regex": PATTERN}],
)
def test_answers_match_a_pattern(client: openai.OpenAI, body: dict[str, Any]) -> None:
    for seed in range(3):
        text = ask(client, seed, extra_body=body).message.content
        assert re.fullmatch(PATTERN, text, re.ASCII)


def test_answers_are_one_of_the_choices(client: openai.OpenAI) -> None:
    choices = ["ja", "nein", "也许"]
    for body in {"structured_outputs": {"choice": choices}}, {"guided_choice": choices}:
        assert ask(client, extra_body=body).message.content in choices


def test_answers_follow_a_grammar_and_an_old_field(client: openai.OpenAI) -> None:
    grammar = 'start: "x" N\nN: /[0-9]{2}/'
    text = ask(client, extra_body={"guided_grammar": grammar}).message.content
    assert re.fullmatch(r"x\d\d", text)
    text = ask(client, extra_body={"guided_json": json.dumps(PERSON)}).message.content
    jsonschema.validate(json.loads(text), PERSON)


def test_several_answers_have_forms_of_their_own(client: openai.OpenAI) -> None:
    given: Any = {"model": "model", "messages": ASKED, "temperature": 1.0, "n": 3, "seed": 1}
    answers = client.chat.completions.create(**given, extra_body={"guided_regex": "[a-z]{8}"})
    texts = [choice.message.content or "" for choice in answers.choices]
    assert all(re.fullmatch("[a-z]{8}", text) for text in texts)
    assert len({*texts}) > 1


def test_texts_are_continued_in_a_form_too(client: openai.OpenAI) -> None:
    reply = client.completions.create(
        model="model", prompt="who", max_tokens=50, extra_body={"guided_regex": PATTERN}
    )
    assert re.fullmatch(PATTERN, reply.choices[0].text, re.ASCII)


@pytest.mark.parametrize("choice", ["required", "named"])
def test_a_tool_that_must_be_called_is(client: openai.OpenAI, choice: str) -> None:
    named = {"type": "function", "function": {"name": "find"}}
    for seed in range(3):
        answer = ask(
            client,
            seed,
            tools=[COUNT, FIND],
            tool_choice=named if choice == "named" else choice,
            parallel_tool_calls=False,
        )
        (called,) = answer.message.tool_calls
        assert answer.finish_reason == "tool_calls"
        tools = {tool["function"]["name"]: tool["function"]["parameters"] for tool in (COUNT, FIND)}
        jsonschema.validate(json.loads(called.function.arguments), tools[called.function.name])
        assert choice == "required" or called.function.name == "find"


@pytest.mark.parametrize("shape", SHAPES.values())
def test_special_tokens_that_mark_calls_are_read_and_never_said(tmp_path: Path, shape: str) -> None:
    template = tmp_path / "mistral.jinja"
    template.write_text(talks.MISTRAL, "utf-8")
    room = {"n_positions": 1024, "max_position_embeddings": 1024}
    model = tiny.make_model(tmp_path / "m", shape, template=str(template), **room)
    tokenizer = load_tokenizer(model)
    new = ["[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[INST]", "[/INST]"]
    tokenizer.add_special_tokens({"additional_special_tokens": new, "bos_token": "<|im_start|>"})
    tokenizer.save_pretrained(str(model))
    grown = AutoModelForCausalLM.from_pretrained(str(model))
    grown.resize_token_embeddings(len(tokenizer))
    grown.save_pretrained(str(model))
    given: Any = {"model": "model", "messages": ASKED, "tools": [FIND], "tool_choice": "required"}
    with connected(build_engine(model, precision="fp32", device="cpu").engine) as client:
        (choice,) = client.chat.completions.create(**given, parallel_tool_calls=False).choices
        bias: Any = {str(tokenizer.convert_tokens_to_ids("[TOOL_CALLS]")): 100}
        said = client.chat.completions.create(
            model="model", messages=ASKED, tools=[FIND], logit_bias=bias, max_tokens=5
        )
    assert choice.message.content is None
    (called,) = choice.message.tool_calls
    assert json.loads(called.function.arguments)["city"] in ("Rom", "北京")
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == ("", "length")
    assert said.usage is not None
    assert said.usage.completion_tokens == 5


def test_a_schema_in_responses_is_held_to(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "name": "x", "schema": PERSON, "strict": True}
    reply = client.responses.create(model="model", input="who?", text={"format": form})
    jsonschema.validate(json.loads(reply.output_text), PERSON)


REFUSED: list[tuple[dict[str, Any], str]] = [
    (
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"not": {"type": "null"}}},
            }
        },
        "response_format.json_schema.schema",
    ),
    ({"guided_regex": "("}, "guided_regex"),
    ({"guided_regex": ""}, "guided_regex"),
    ({"structured_outputs": {"json_object": False}}, "structured_outputs"),
    ({"structured_outputs": {"grammar": ""}}, "structured_outputs.grammar"),
    ({"guided_json": "{"}, "guided_json"),
    ({"guided_choice": []}, "guided_choice"),
    (
        {"response_format": {"type": "json_object", "json_schema": {"schema": {}}}},
        "response_format.json_schema",
    ),
    ({"guided_regex": "a", "response_format": {"type": "json_object"}}, "guided_regex"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
    ),
    (
        {
            "tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}],
            "tool_choice": "required",
        },
        "tools[0].function.parameters",
    ),
]


@pytest.mark.parametrize(("body", "where"), REFUSED, ids=range(len(REFUSED)))
def test_a_form_that_cannot_be_held_to_is_refused(
    client: openai.OpenAI, body: dict[str, Any], where: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, extra_body=body)
    problem: Any = caught.value.body
    assert problem["param"] == where
    assert problem["message"]
    assert problem["hint"]
