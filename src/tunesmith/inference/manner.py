"""How a model marks what it thinks and what it calls in the text of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.inference.thinking import Thinking, find_thinking
from tunesmith.inference.tool_calls import ToolFormat, find_tool_format, named_tool_format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tunesmith.templates import Template


@dataclass(frozen=True)
class Manner:
    """How a model marks thoughts and calls.

    Attributes:
        tools: the format of calls; None if it writes none, or somebody else parts them.
        thinking: the marks of thoughts; None if it knows none.
        specials: ids of the marks among its special tokens, which have no text of their own.
    """

    tools: ToolFormat | None = None
    thinking: Thinking | None = None
    specials: Mapping[str, int] = field(default_factory=dict)


PLAIN = Manner()


def find_manner(
    template: Template | None, tokenizer: PreTrainedTokenizerFast, tool_format: str | None = None
) -> Manner:
    """Find how a model marks thoughts and calls, from what its template writes.

    Args:
        tool_format: the name of another format of calls than the template's.

    Raises:
        RequestError: if there is no such format.
    """
    named = named_tool_format(tool_format) if tool_format else None
    if template is None:
        return Manner(named)
    added = tokenizer.added_tokens_decoder.items()
    specials = {str(token): number for number, token in added if token.special}
    tools = named or find_tool_format(template, tokenizer.get_vocab())
    thinking = find_thinking(template.source)
    marks = {*(tools.marks if tools else ())}
    if thinking is not None:
        marks |= {thinking.opening, thinking.closing}
    return Manner(tools, thinking, {mark: specials[mark] for mark in marks if mark in specials})
