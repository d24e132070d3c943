"""How a template spells the calls whose arguments are JSON: what stands around and between."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import DataError

if TYPE_CHECKING:
    from tunesmith.templates import Template

NAME = "probe_tool"
ID = "call0000"
"""The beginning of the ids in what is spelled; a digit follows."""
TOOL: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": NAME,
        "description": "",
        "parameters": {"type": "object", "properties": {"key": {"type": "string"}}},
    },
}
ARGUMENTS = re.compile(r'\{\s*"key"\s*:\s*"value"\s*\}')


@dataclass(frozen=True)
class Shape:
    """What a model writes before a name, between it and the arguments, and behind them.

    Attributes:
        joint: what stands between the arguments of one call and the name of the next; None where
            an answer holds only one call.
    """

    before: str
    between: str
    after: str
    joint: str | None = None


def spell_probe(template: Template, num_calls: int = 1) -> str:
    """Write an answer that calls a tool, as the model would write it.

    Raises:
        DataError: if the template writes no calls, or not so many.
    """
    calls = [
        {
            "type": "function",
            "id": f"{ID}{number}",
            "function": {"name": NAME, "arguments": {"key": "value"}},
        }
        for number in range(1, num_calls + 1)
    ]
    answer = {"role": "assistant", "content": "", "tool_calls": calls}
    spelled = template.spell_answer([{"role": "user", "content": "question"}, answer], [TOOL])
    return re.split(r"</think>|\[/THINK\]", spelled)[-1].lstrip()


def find_shape(template: Template) -> Shape | None:
    """Find how the template spells calls; None where arguments are no JSON."""
    spelled = spell_probe(template)
    before, _, rest = spelled.partition(NAME)
    if not (found := ARGUMENTS.search(rest)):
        return None
    one = Shape(before, rest[: found.start()], rest[found.end() :])
    try:
        both = spell_probe(template, 2)
    except DataError:
        return one
    places = [*ARGUMENTS.finditer(both)]
    if len(places) != 2:
        return one
    joint = both[places[0].end() : both.rindex(NAME)]
    return Shape(one.before, one.between, both[places[1].end() :], joint)
