"""Recognise how a model writes calls of tools."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError, RequestError
from tunesmith.inference.parts import Said, put_together
from tunesmith.inference.tool_calls.formats import FORMATS, ToolFormat
from tunesmith.inference.tool_calls.parser import ToolParser
from tunesmith.inference.tool_calls.shape import NAME, TOOL, find_shape, spell_probe

if TYPE_CHECKING:
    from tunesmith.templates import Template

TOKENS = {"[TOOL_CALLS]": "mistral", "<|python_tag|>": "llama3", "<tool_call>": "hermes"}
"""Tokens that tell the format where the template writes no call."""


def find_tool_format(template: Template, vocabulary: Collection[str]) -> ToolFormat | None:
    """Find the format that reads the calls which the template writes.

    What is trained is written by the template, so this is what the model writes.

    Args:
        vocabulary: the tokens that exist.
    """
    try:
        spelled = spell_probe(template)
    except DataError:
        return next((FORMATS[TOKENS[each]] for each in TOKENS if each in vocabulary), None)
    found = next((each for each in FORMATS.values() if _reads(each, spelled)), None)
    shape = find_shape(template) if found else None
    return replace(found, shape=shape) if found and shape else found


def named_tool_format(name: str) -> ToolFormat:
    """Return a format by its name.

    Raises:
        RequestError: if there is none.
    """
    if name not in FORMATS:
        raise RequestError(
            f"there is no tool format {name!r}",
            hint=f"take one of {', '.join(FORMATS)}",
            where="--tool-format",
        )
    return FORMATS[name]


def _reads(form: ToolFormat, spelled: str) -> bool:
    said = read_calls(form, spelled, [TOOL])
    return any(call.name == NAME and '"value"' in call.arguments for call in said.calls)


def read_calls(form: ToolFormat, text: str, tools: Sequence[Any] = ()) -> Said:
    """Read a whole answer."""
    parser = ToolParser(form, tools)
    return put_together([*parser.push(text), *parser.end()])
