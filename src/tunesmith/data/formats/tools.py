"""Tools that a row offers, and what its messages hold beside their text."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.data.formats.format import Fields, check_text, describe, quote
from tunesmith.data.rows import Call, Message, RowFault, spell

NOTHING: tuple[object, ...] = (None, "", "[]", [])
REASONING = ("reasoning_content", "reasoning", "thinking")
WEIGHTS = ("weight", "loss_weight", "loss", "train")
"""What rows call the weight of an answer: numbers, or true and false."""
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6
"""The loss is counted in 32 bits, which hold no more."""
CALLS = ("tool_calls", "function_call")
LARGEST = 2**63
THOUGHT = re.compile(r"\s*(<think>.*?</think>)\s*", re.DOTALL)


def read_tools(fields: Fields) -> tuple[Mapping[str, Any], ...]:
    """Return the tools of a row, each as OpenAI's API takes it.

    Raises:
        RowFault: if they are no list of functions with a name.
    """
    if any(fields.get("tools") == nothing for nothing in NOTHING):
        return ()
    tools = _parse(fields["tools"], "`tools`")
    if not isinstance(tools, list):
        raise RowFault(f"`tools` is {describe(tools)}, not a list")
    return tuple(_read_tool(tool, f"tool {number}") for number, tool in enumerate(tools, 1))


def _read_tool(value: object, label: str) -> Mapping[str, Any]:
    tool = _parse(value, label)
    if not isinstance(tool, dict):
        raise RowFault(f"{label} of `tools` is {describe(tool)}, not an object")
    wrapped = isinstance(tool.get("function"), dict)
    function = tool["function"] if wrapped else tool
    if not isinstance(function.get("name"), str) or not function["name"]:
        raise RowFault(f"{label} of `tools` has no `name`")
    _check_json(function, f"{label} of `tools`")
    return tool if wrapped else {"type": "function", "function": tool}


def read_message(
    role: str, value: Mapping[str, Any], content: str | None, label: str, calls: list[Call]
) -> Message:
    """Build a message of its text and what else its fields say.

    Args:
        role: one of ours.
        content: None where there is no text.
        calls: those that stand in the text.

    Raises:
        RowFault: if it lacks a text, or says what means nothing there.
    """
    calls = [*calls, *_read_calls(value, label)]
    reasoning = _read_reasoning(value, label)
    weight = _read_weight(value, label, is_answer=role == "assistant")
    if role != "assistant" and (calls or reasoning):
        what = "calls a tool" if calls else "holds reasoning"
        raise RowFault(f"{label} {what}, and is of role {role}")
    if content is None and not calls:
        raise RowFault(f"{label} has no text")
    if role != "tool":
        return Message(role, content or "", tuple(calls), reasoning, weight)
    names = {key: value.get(key) or "" for key in ("tool_call_id", "name")}
    for key, name in names.items():
        check_text(name, f"`{key}` of {label}")
    return Message(role, content or "", call_id=names["tool_call_id"], name=names["name"])


def read_spelled_calls(text: str, label: str) -> tuple[str, list[Call]]:
    """Read calls that stand as JSON in a message's text, a thought before them if need be.

    Returns:
        the thought, and the calls.
    """
    thought = THOUGHT.match(text)
    value = _parse(text[thought.end() :] if thought else text, f"the call in {label}")
    values = value if isinstance(value, list) else [value]
    if not values:
        raise RowFault(f"{label} calls no tool")
    return thought[1] if thought else "", [_read_call(each, label) for each in values]


def _read_calls(value: Mapping[str, Any], label: str) -> list[Call]:
    listed, single = (value.get(key) for key in CALLS)
    if any(listed == nothing for nothing in NOTHING):
        return [_read_call(single, label)] if single else []
    calls = _parse(listed, f"`tool_calls` of {label}")
    if not isinstance(calls, list):
        raise RowFault(f"`tool_calls` of {label} is {describe(calls)}, not a list")
    return [_read_call(call, label) for call in calls]


def _read_call(value: object, label: str) -> Call:
    call = _parse(value, f"a call in {label}")
    if not isinstance(call, dict):
        raise RowFault(f"a call in {label} is {describe(call)}, not an object")
    function = call["function"] if isinstance(call.get("function"), dict) else call
    name = function.get("name")
    if not isinstance(name, str) or not name:
        raise RowFault(f"a call in {label} has no `name`")
    which = f"the arguments of {spell(name)} in {label}"
    arguments = function.get("arguments")
    arguments = {} if arguments is None else _parse(arguments, which)
    if not isinstance(arguments, dict):
        raise RowFault(f"{which} are {describe(arguments)}, not an object")
    _check_json({"name": name, "arguments": arguments}, f"a call in {label}")
    return Call(name, arguments, check_text(call.get("id") or "", f"`id` of a call in {label}"))


def _parse(value: object, label: str) -> Any:
    """Read what rows hold either as it is or as JSON in a text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise RowFault(f"{label} is no JSON: {quote(value)}") from None


def _read_reasoning(value: Mapping[str, Any], label: str) -> str:
    found = next((value[key] for key in REASONING if value.get(key)), "")
    return check_text(found, f"the reasoning of {label}")


def _read_weight(value: Mapping[str, Any], label: str, *, is_answer: bool) -> float:
    """Return how much an answer counts; what is no answer is not learned anyway."""
    given = {key: value[key] for key in WEIGHTS if value.get(key) is not None}
    for key, weight in given.items():
        if not isinstance(weight, bool | int | float):
            raise RowFault(f"`{key}` of {label} is {quote(weight)}, not a number from 0")
        if weight and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
            raise RowFault(
                f"`{key}` of {label} is {spell(str(weight), 20)}, neither 0 nor from "
                f"{LEAST_WEIGHT:g} to {MOST_WEIGHT:g}"
            )
        if weight and not is_answer:
            raise RowFault(f"{label} has a `{key}`, and only answers are weighed")
    if len({float(weight) for weight in given.values()}) > 1:
        raise RowFault(f"{label} has several weights: {', '.join(given)}")
    return next((float(weight) for weight in given.values()), 1.0) if is_answer else 1.0


def _check_json(value: object, label: str) -> None:
    """Refuse characters that no text may hold, and what is no JSON, however deep it lies."""
    if isinstance(value, str):
        check_text(value, label)
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            check_text(key, label)
            _check_json(inner, label)
    elif isinstance(value, list):
        for inner in value:
            _check_json(inner, label)
    elif isinstance(value, int | float) and not -LARGEST <= value < LARGEST:
        raise RowFault(f"{label} holds the number {value}, which is too large")
    elif value is not None and not isinstance(value, bool | int | float):
        raise RowFault(f"{label} holds {describe(value)}, which is no JSON")


def without_nulls(value: Any) -> Any:
    """Take out what a table put in: where one row has a field, it fills it with null in others."""
    if isinstance(value, Mapping):
        return {key: without_nulls(each) for key, each in value.items() if each is not None}
    return [without_nulls(each) for each in value] if isinstance(value, list) else value
