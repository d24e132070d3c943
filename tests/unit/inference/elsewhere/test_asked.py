"""Forms that servers elsewhere hold answers to: what they are asked, and that they do it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.unit.inference.elsewhere.standing_in import StandIn, standing_in
from tests.unit.inference.elsewhere.test_remote import USAGE, ask, chunk
from tests.unit.inference.hearing import Said, hear
from tunesmith.errors import EngineError, RequestError
from tunesmith.inference.elsewhere.asked import forms_on_wire
from tunesmith.inference.engine import Request
from tunesmith.inference.remote import Remote, RemoteOptions
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent
from tunesmith.inference.structured import Calling, Outline, Wanted
from tunesmith.inference.thinking import Thinking
from tunesmith.inference.tool_calls import FORMATS

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string"}, "b": {"type": "array", "items": {"type": "number"}}},
    "required": ["a"],
}
JSON = Outline(Wanted("json", SCHEMA, "x"))
TOOLS = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}}
    for name in ("look", "wait")
]


def calling(count: int, **options: Any) -> Calling:
    return Calling(FORMATS["hermes"], TOOLS[:count], **{"many": True, **options})


ASKED: list[tuple[Outline, dict[str, Any]]] = [
    (
        JSON,
        {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True},
            }
        },
    ),
    (
        Outline(Wanted("json", {"type": "object"}, "x")),
        {"response_format": {"type": "json_object"}},
    ),
    (Outline(Wanted("regex", "a+", "x")), {"structured_outputs": {"regex": "a+"}}),
    (Outline(Wanted("choice", ["海", "b"], "x")), {"structured_outputs": {"choice": ["海", "b"]}}),
    (
        Outline(Wanted("grammar", 'root ::= "x"', "x")),
        {"structured_outputs": {"grammar": 'root ::= "x"'}},
    ),
    (Outline(calling=calling(2)), {"tool_choice": "required"}),
    (
        Outline(calling=calling(1, many=False)),
        {
            "tool_choice": {"type": "function", "function": {"name": "look"}},
            "parallel_tool_calls": False,
        },
    ),
    (Outline(calling=calling(2, free=True)), {}),
    (
        Outline(Wanted("regex", "a+", "x"), calling(2)),
        {"structured_outputs": {"regex": "a+"}},
    ),
]


@pytest.mark.parametrize("at", range(len(ASKED)))
def test_forms_are_asked_for_in_the_words_of_other_servers(at: int) -> None:
    outline, fields = ASKED[at]
    assert forms_on_wire(outline) == fields


@pytest.mark.parametrize("value", [{"not": {}}, {"$ref": "http://example.com/x"}, [1]])
def test_what_we_could_not_read_along_is_refused_with_its_field(value: Any) -> None:
    with pytest.raises(RequestError) as caught:
        forms_on_wire(Outline(Wanted("json", value, "the.field")))
    assert caught.value.where == "the.field"


def told(outline: Outline, texts: Sequence[str], finish: str = "stop", **sampling: Any) -> Said:
    """Hear a server that says these texts when it is asked for a form."""
    events = [*(chunk(content=text) for text in texts), chunk(finish), USAGE, b"[DONE]"]
    with standing_in(StandIn(events)) as server:
        engine = Remote(RemoteOptions(server.url))
        (form,) = engine.models()["far"].forms(outline, 1)
        asked = ask(engine, Sampling(**sampling))
        said = hear(engine, Request(asked.prompt, asked.sampling, form=form))
    assert server.asked[-1][2].items() >= forms_on_wire(outline).items()
    return said


@pytest.mark.parametrize(
    "text",
    ['{"a":"海"}', ' {\n\n\n  "a" : "\\u00e9", "b": [1 ,2.5e3] }\n', '{"a": "x", "c": null}'],
)
def test_json_may_be_spelled_as_the_server_likes(text: str) -> None:
    assert told(JSON, [text[:5], text[5:]]).text == text


def test_a_thought_may_come_before() -> None:
    thinks = Outline(
        Wanted("choice", ["yes", "no"], "x"), thinking=(Thinking("<think>", "</think>"), False)
    )
    events = [chunk(reasoning_content="hm"), chunk("stop", content="no"), b"[DONE]"]
    with standing_in(StandIn(events)) as server:
        engine = Remote(RemoteOptions(server.url))
        (form,) = engine.models()["far"].forms(thinks, 1)
        said = hear(engine, Request(ask(engine).prompt, Sampling(), form=form))
    assert said.text == "<think>hm</think>no"


@pytest.mark.parametrize(
    ("outline", "texts", "says"),
    [
        (JSON, ['{"a": ', "7}"], "leaves the form"),
        (JSON, ["Here it is: {"], "leaves the form"),
        (JSON, ['{"a": "x"'], "before the form is complete"),
        (JSON, ['{"b": []}'], "leaves the form"),
        (Outline(Wanted("choice", ["yes", "no"], "x")), ["yes, sir"], "leaves the form"),
        (Outline(Wanted("regex", "[0-9]{3}", "x")), ["12"], "before the form is complete"),
        (Outline(calling=calling(2)), ["I would rather not."], "before the form is complete"),
    ],
)
def test_a_server_that_does_not_do_it_is_found_out(
    outline: Outline, texts: list[str], says: str
) -> None:
    with pytest.raises(EngineError, match=says):
        told(outline, texts)


def test_an_answer_that_was_cut_has_the_beginning_of_its_form() -> None:
    assert told(JSON, ['{"a": "x'], "length").finish == "length"
    assert told(JSON, ['{"a": "x"'], stop=("}",)).finish == "stop"
    over = told(Outline(Wanted("choice", ["yes", "no"], "x")), ["no"], "length")
    assert over.finish == "stop"


def test_an_answer_may_be_cut_within_a_character() -> None:
    choice = Outline(Wanted("choice", ["海螺"], "x"))
    assert told(choice, ["海", "\ufffd"], "length").finish == "length"
    for texts, says in ((["海", "\ufffd", "螺"], "leaves"), (["海螺", "\ufffd"], "leaves")):
        with pytest.raises(EngineError, match=says):
            told(choice, texts)
    assert told(Outline(Wanted("choice", ["\ufffd"], "x")), ["\ufffd"]).text == "\ufffd"


def test_bytes_of_a_character_may_come_apart() -> None:
    form = Sent({}, 'start: "海螺"\n')
    for text in ("", "海", "螺"):
        form.take(text)
    form.end()
    assert form.is_over()
