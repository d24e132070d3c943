"""OpenAI's own client calls tools, sends their results back, and reads thoughts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest

from tests import tiny
from tests.unit.serving.spoken import Scripted, connected
from tunesmith.inference.speech import ModelSpeech
from tunesmith.inference.tool_calls import named_tool_format
from tunesmith.models.chat import load_chat_model
from tunesmith.serving.message import Unsaid

FIND: Any = {
    "type": "function",
    "function": {
        "name": "find_shop",
        "description": "找店",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}
ASKED: list[Any] = [{"role": "user", "content": "Where?"}]


def call(city: str) -> str:
    return f'<tool_call>\n{{"name": "find_shop", "arguments": {{"city": "{city}"}}}}\n</tool_call>'


@pytest.fixture(scope="module")
def speech(tmp_path_factory: pytest.TempPathFactory) -> ModelSpeech:
    folder = tiny.make_model(tmp_path_factory.mktemp("model") / "m", max_position_embeddings=4096)
    return ModelSpeech(load_chat_model(folder, precision="fp32", device="cpu"))


def create(engine: Scripted, **body: Any) -> Any:
    with connected(engine) as client:
        return client.chat.completions.create(**{"model": "model", "messages": ASKED, **body})


def stream(engine: Scripted, **body: Any) -> list[Any]:
    given: Any = {"model": "model", "messages": ASKED, "stream": True, **body}
    with connected(engine) as client:
        return [*client.chat.completions.create(**given)]


def test_a_tool_is_called(speech: ModelSpeech) -> None:
    engine = Scripted(speech, [f"I look.\n{call('北京')}"])
    (choice,) = create(engine, tools=[FIND]).choices
    assert choice.finish_reason == "tool_calls"
    assert choice.message.content == "I look."
    (called,) = choice.message.tool_calls
    assert called.type == "function"
    assert called.function.name == "find_shop"
    assert json.loads(called.function.arguments) == {"city": "北京"}
    assert "find_shop" in engine.prompt()


def test_several_tools_are_called_and_their_results_are_sent_back(speech: ModelSpeech) -> None:
    engine = Scripted(speech, [f"{call('Rom')}\n{call('Ulm')}", "A and B."])
    (choice,) = create(engine, tools=[FIND]).choices
    calls = choice.message.tool_calls
    assert choice.message.content is None
    assert [json.loads(each.function.arguments)["city"] for each in calls] == ["Rom", "Ulm"]
    results = [
        {"role": "tool", "tool_call_id": each.id, "content": f"shop {at}"}
        for at, each in enumerate(calls)
    ]
    answer = choice.message.model_dump(exclude_none=True)
    reply = create(engine, tools=[FIND], messages=[*ASKED, answer, *results])
    assert reply.choices[0].message.content == "A and B."
    assert reply.choices[0].finish_reason == "stop"
    prompt = engine.prompt()
    assert prompt.index(call("Rom")) < prompt.index(call("Ulm")) < prompt.index("shop 0")
    assert prompt.index("shop 0") < prompt.index("shop 1")


def test_calls_are_streamed_in_parts(speech: ModelSpeech) -> None:
    chunks = stream(Scripted(speech, [f"Hm. {call('北京')}{call('Ulm')}"]), tools=[FIND])
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert "".join(delta.content or "" for delta in deltas) == "Hm."
    parts = [part for delta in deltas for part in delta.tool_calls or ()]
    firsts = [part for part in parts if part.id]
    assert [(part.index, part.type, part.function.name) for part in firsts] == [
        (0, "function", "find_shop"),
        (1, "function", "find_shop"),
    ]
    for index, city in enumerate(["北京", "Ulm"]):
        texts = [part.function.arguments for part in parts if part.index == index]
        assert json.loads("".join(texts)) == {"city": city}
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_the_clients_own_reader_of_streams_puts_calls_together(speech: ModelSpeech) -> None:
    engine = Scripted(speech, [f"{call('Rom')}\n{call('Ulm')}"])
    asked: Any = {"model": "model", "messages": ASKED, "tools": [FIND]}
    with connected(engine) as client, client.chat.completions.stream(**asked) as found:
        calls = found.get_final_completion().choices[0].message.tool_calls
    assert calls is not None
    assert [each.function.arguments for each in calls] == ['{"city": "Rom"}', '{"city": "Ulm"}']


def test_one_call_at_a_time_ends_the_answer_behind_the_first(speech: ModelSpeech) -> None:
    says = f"{call('Rom')}\n{call('Ulm')} and on"
    for asked in create, stream:
        engine = Scripted(speech, [says])
        found = asked(engine, tools=[FIND], parallel_tool_calls=False)
        if asked is create:
            assert len(found.choices[0].message.tool_calls) == 1
            assert found.choices[0].finish_reason == "tool_calls"
        else:
            assert {part.index for c in found for part in c.choices[0].delta.tool_calls or ()} == {
                0
            }
            assert found[-1].choices[0].finish_reason == "tool_calls"


def test_one_call_at_a_time_may_be_the_one_behind_a_broken_one(speech: ModelSpeech) -> None:
    broken = '<tool_call>{"name": "find_shop", "arguments": {]</tool_call>'
    engine = Scripted(speech, [f"{broken}{call('Ulm')}{call('Rom')}"])
    (choice,) = create(engine, tools=[FIND], parallel_tool_calls=False).choices
    (called,) = choice.message.tool_calls
    assert json.loads(called.function.arguments) == {"city": "Ulm"}
    assert choice.message.content == broken


def test_a_broken_call_is_said(speech: ModelSpeech) -> None:
    says = '<tool_call>\n{"name": "find_shop", "arguments": {"city": }}\n</tool_call>'
    (choice,) = create(Scripted(speech, [says]), tools=[FIND]).choices
    assert (choice.message.content, choice.message.tool_calls) == (says, None)
    assert choice.finish_reason == "stop"
    chunks = stream(Scripted(speech, [says]), tools=[FIND])
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == says
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("body", [{}, {"tools": [FIND], "tool_choice": "none"}])
def test_without_tools_nothing_is_called(speech: ModelSpeech, body: dict[str, Any]) -> None:
    engine = Scripted(speech, [call("Rom")])
    (choice,) = create(engine, **body).choices
    assert choice.message.content == call("Rom")
    assert "find_shop" not in engine.prompt()


def test_another_format_can_be_named(speech: ModelSpeech) -> None:
    engine = Scripted(speech, ['[TOOL_CALLS]find_shop[ARGS]{"city": "Rom"}'])
    asked: Any = {"model": "model", "messages": ASKED, "tools": [FIND]}
    with connected(engine, named_tool_format("mistral")) as client:
        (called,) = client.chat.completions.create(**asked).choices[0].message.tool_calls
    assert called.function.arguments == '{"city": "Rom"}'
    assert len(called.id) == 9


THOUGHT = "<think>\nwhich town\n</think>\n\nIn Ulm."


def test_thoughts_are_told_apart(speech: ModelSpeech) -> None:
    reply = create(Scripted(speech, [THOUGHT]))
    message = reply.choices[0].message
    assert (message.content, message.reasoning_content) == ("In Ulm.", "which town")
    thought = reply.usage.completion_tokens_details.reasoning_tokens
    assert len("which town") < thought < len(THOUGHT) - len("In Ulm.")
    assert reply.usage.completion_tokens == len(THOUGHT)
    options = {"stream_options": {"include_usage": True}}
    chunks = stream(Scripted(speech, [THOUGHT]), **options)
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    told = [getattr(delta, "reasoning_content", None) or "" for delta in deltas]
    assert "".join(told) == "which town"
    assert "".join(delta.content or "" for delta in deltas) == "In Ulm."
    assert chunks[-1].usage.completion_tokens_details.reasoning_tokens == thought


def test_a_thought_may_come_before_a_call(speech: ModelSpeech) -> None:
    says = f"<think>\nwhich {call('Bonn')}\n</think>\n\n{call('Ulm')}"
    message = create(Scripted(speech, [says]), tools=[FIND]).choices[0].message
    assert message.reasoning_content == f"which {call('Bonn')}"
    assert [json.loads(each.function.arguments) for each in message.tool_calls] == [{"city": "Ulm"}]


def test_a_model_without_thoughts_tells_none(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "m", template="alpaca")
    plain = ModelSpeech(load_chat_model(folder, precision="fp32", device="cpu"))
    reply = create(Scripted(plain, [THOUGHT]))
    assert reply.choices[0].message.content == THOUGHT
    assert reply.usage.completion_tokens_details is None


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"parallel_tool_calls": True}, "parallel_tool_calls"),
        (
            {"tools": [FIND], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            "tool_choice.function.name",
        ),
    ],
)
def test_a_choice_that_is_not_there_is_refused(
    speech: ModelSpeech, body: dict[str, Any], where: str
) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        create(Scripted(speech, [""]), **body)
    assert caught.value.param == where


PLAIN = """
{%- for message in messages %}
    {%- if message.role == "system" %}{{ raise_exception("no rules here") }}{% endif %}
    {{- message.role + ": " + message.content + "<|endoftext|>" }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "assistant: " }}{% endif %}"""


def test_what_the_template_does_not_write_is_named_as_the_client_calls_it(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "m")
    tiny.change_json(folder / "tokenizer_config.json", chat_template=PLAIN)
    plain = ModelSpeech(load_chat_model(folder, precision="fp32", device="cpu"))
    for body, where, says in (
        ({"tools": [FIND]}, "tools", "writes no tools"),
        ({"messages": [{"role": "system", "content": "a"}, *ASKED]}, "messages", "no rules here"),
    ):
        with pytest.raises(openai.BadRequestError, match=says) as caught:
            create(Scripted(plain, ["Hi."]), **body)
        assert caught.value.param == where
    assert create(Scripted(plain, ["Hi."])).choices[0].message.content == "Hi."


def test_functions_are_called_in_responses_too(speech: ModelSpeech) -> None:
    tool: Any = {"type": "function", **FIND["function"]}
    engine = Scripted(speech, [f"{call('Rom')}{call('Ulm')}", "A and B."])
    with connected(engine) as client:
        first: Any = client.responses.create(model="model", input="Where?", tools=[tool])
        given: list[Any] = [{"role": "user", "content": "Where?"}]
        given += [item.model_dump(exclude_none=True) for item in first.output]
        given += [
            {"type": "function_call_output", "call_id": item.call_id, "output": f"shop {at}"}
            for at, item in enumerate(first.output)
        ]
        second = client.responses.create(model="model", input=given, tools=[tool])
    assert [(item.type, item.name) for item in first.output] == [("function_call", "find_shop")] * 2
    assert json.loads(first.output[1].arguments) == {"city": "Ulm"}
    assert second.output_text == "A and B."
    assert "shop 1" in engine.prompt()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a[TOOL_CALLS]b", "ab"),
        ("[TOOL_CALLS][TOOL_CALLS", "[TOOL_CALLS"),
        ("[[TOOL_CALLS]TOOL", "[TOOL"),
        ("<|a|[ARGS]>[", "<|a|>["),
    ],
)
def test_special_tokens_are_left_out_wherever_a_text_is_cut(text: str, says: str) -> None:
    for at in range(len(text) + 1):
        unsaid = Unsaid(["[TOOL_CALLS]", "[ARGS]"])
        assert unsaid.push(text[:at]) + unsaid.push(text[at:]) + unsaid.end() == says
