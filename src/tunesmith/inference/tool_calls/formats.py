"""The ways in which families of models write calls of tools."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from tunesmith.inference.tool_calls.announce import Calls, long_id, short_id, spell_value
from tunesmith.inference.tool_calls.shape import Shape
from tunesmith.inference.tool_calls.source import Broken, Reading


@dataclass(frozen=True)
class ToolFormat:
    """How calls are written.

    Attributes:
        read: reads what stands at the beginning of a call, its opening still before it.
        opens: texts that open a call wherever they stand.
        bare: whether a call may open an answer without a mark.
        marks: tokens that belong to calls and never to what is said.
        line: whether an opening counts only at the beginning of a line.
        shape: how calls are spelled where their arguments are JSON.
    """

    name: str
    read: Callable[[Calls], Reading[None]]
    opens: tuple[str, ...]
    bare: bool = False
    marks: tuple[str, ...] = ()
    line: bool = False
    shape: Shape | None = None
    new_id: Callable[[], str] = long_id


def _read_hermes(calls: Calls) -> Reading[None]:
    """Read `<tool_call>{"name": ..., "arguments": ...}</tool_call>`."""
    source = calls.source
    yield from source.expect("<tool_call>")
    yield from source.skip_space()
    yield from calls.read_call()
    yield from _close(calls, "</tool_call>")


def _close(calls: Calls, mark: str) -> Reading[None]:
    """Go past the mark that closes a call; a server may have stopped before it."""
    yield from calls.source.skip_space()
    if (yield from calls.source.peek()):
        yield from calls.source.expect(mark)
    calls.finish()


def _read_qwen_xml(calls: Calls) -> Reading[None]:
    """Read `<function=NAME><parameter=KEY>VALUE</parameter></function>` between tags."""
    source = calls.source
    yield from source.expect("<tool_call>")
    yield from source.skip_space()
    yield from source.expect("<function=")
    name = (yield from source.up_to(">", "\n")).strip()
    yield from source.expect(">")
    if not name:
        raise Broken
    yield from calls.start(name)
    yield from source.skip_space()
    separator = "{"
    while not (yield from source.meets("</function>")):
        yield from source.expect("<parameter=")
        key = (yield from source.up_to(">", "\n")).strip()
        yield from source.expect(">")
        value = yield from source.up_to("</parameter>")
        yield from source.expect("</parameter>")
        value = value.removeprefix("\n").removesuffix("\n")
        yield from _add_argument(calls, name, separator, key, value)
        separator = ", "
        yield from source.skip_space()
    yield from calls.add("{}" if separator == "{" else "}")
    yield from _close(calls, "</tool_call>")


def _add_argument(calls: Calls, name: str, separator: str, key: str, value: str) -> Reading[None]:
    schema = calls.tools.get(name, {}).get("properties", {}).get(key)
    spelled = json.dumps(key, ensure_ascii=False)
    yield from calls.add(f"{separator}{spelled}: {spell_value(value, schema)}")


def _read_glm_xml(calls: Calls) -> Reading[None]:
    """Read `<tool_call>NAME<arg_key>KEY</arg_key><arg_value>VALUE</arg_value></tool_call>`."""
    source = calls.source
    yield from source.expect("<tool_call>")
    name = (yield from source.up_to("<arg_key>", "</tool_call>")).strip()
    if not name or "\n" in name:
        raise Broken
    yield from calls.start(name)
    separator = "{"
    while (yield from source.meets("<arg_key>")):
        key = (yield from source.up_to("</arg_key>")).strip()
        yield from source.expect("</arg_key>")
        yield from source.skip_space()
        yield from source.expect("<arg_value>")
        value = yield from source.up_to("</arg_value>")
        yield from source.expect("</arg_value>")
        yield from _add_argument(calls, name, separator, key, value)
        separator = ", "
        yield from source.skip_space()
    yield from calls.add("{}" if separator == "{" else "}")
    yield from _close(calls, "</tool_call>")


def _read_llama3(calls: Calls) -> Reading[None]:
    """Read `{"name": ..., "parameters": ...}`, several with semicolons between."""
    source = calls.source
    marked = yield from source.meets("<|python_tag|>")
    while True:
        yield from source.skip_space()
        yield from calls.read_call(known_only=not marked)
        calls.finish()
        yield from source.skip_space()
        if not (yield from source.meets(";")):
            return


def _read_mistral(calls: Calls) -> Reading[None]:
    """Read a list of calls, or `NAME[ARGS]{...}`, behind `[TOOL_CALLS]`."""
    source = calls.source
    yield from source.expect("[TOOL_CALLS]")
    yield from source.skip_space()
    if not (yield from source.meets("[")):
        yield from _read_mistral_call(calls)
        return
    while True:
        yield from source.skip_space()
        yield from calls.read_call()
        yield from source.skip_space()
        if (yield from source.meets("]")) or not (yield from source.peek()):
            calls.finish()
            return
        calls.finish()
        yield from source.expect(",")


def _read_mistral_call(calls: Calls) -> Reading[None]:
    source = calls.source
    name = (yield from source.up_to("[ARGS]", "[CALL_ID]", "{")).strip()
    if not name or any(character.isspace() for character in name):
        raise Broken
    if (yield from source.meets("[CALL_ID]")):
        yield from source.up_to("[ARGS]")
    yield from source.meets("[ARGS]")
    yield from source.skip_space()
    yield from calls.start(name)
    yield from calls.read_object()
    calls.finish()


def _read_glm4(calls: Calls) -> Reading[None]:
    """Read a name, and its arguments as JSON in the next line."""
    source = calls.source
    yield from source.meets("<|assistant|>")
    yield from source.skip_space()
    name = yield from _read_name(calls, "\n")
    yield from source.skip_space()
    yield from calls.start(name)
    yield from calls.read_object()
    calls.finish()


def _read_name(calls: Calls, end: str) -> Reading[str]:
    """Read a name up to an end, no farther than it may be that of a tool."""
    source, start = calls.source, calls.source.at
    while (found := (yield from source.peek())) != end:
        source.at += 1
        name = source.text[start : source.at].strip()
        if not found or not any(each.startswith(name) for each in calls.tools or (name,)):
            raise Broken
    name = source.text[start : source.at].strip()
    calls.check_name(name)
    return name


def _read_react(calls: Calls) -> Reading[None]:
    """Read `Action: NAME` and `Action Input: {...}`."""
    source = calls.source
    yield from source.expect("Action:")
    name = yield from _read_name(calls, "\n")
    yield from source.skip_space()
    yield from source.expect("Action Input:")
    yield from source.skip_space()
    yield from calls.start(name)
    yield from calls.read_object()
    calls.finish()


TAGS = ("<tool_call>", "</tool_call>")
HERMES = Shape(
    '<tool_call>\n{"name": "',
    '", "arguments": ',
    "}\n</tool_call>",
    '}\n</tool_call>\n<tool_call>\n{"name": "',
)
LLAMA3 = Shape('{"name": "', '", "parameters": ', "}", '}; {"name": "')
MISTRAL = Shape('[TOOL_CALLS] [{"name": "', '", "arguments": ', "}]", '}, {"name": "')
REACT = Shape("Action: ", "\nAction Input: ", "", "\nAction: ")
FORMATS = {
    each.name: each
    for each in (
        ToolFormat("hermes", _read_hermes, TAGS[:1], marks=TAGS, shape=HERMES),
        ToolFormat("qwen_xml", _read_qwen_xml, TAGS[:1], marks=TAGS),
        ToolFormat(
            "glm_xml",
            _read_glm_xml,
            TAGS[:1],
            marks=(*TAGS, "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"),
        ),
        ToolFormat(
            "mistral",
            _read_mistral,
            ("[TOOL_CALLS]",),
            marks=("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"),
            shape=MISTRAL,
            new_id=short_id,
        ),
        ToolFormat(
            "llama3",
            _read_llama3,
            ("<|python_tag|>",),
            bare=True,
            marks=("<|python_tag|>",),
            shape=LLAMA3,
        ),
        ToolFormat(
            "glm4",
            _read_glm4,
            ("<|assistant|>",),
            bare=True,
            marks=("<|assistant|>",),
            shape=Shape("", "\n", "", "<|assistant|>"),
        ),
        ToolFormat("react", _read_react, ("Action:",), line=True, shape=REACT),
    )
}
"""By the names of `--tool-format`."""
