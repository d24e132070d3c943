"""How a model marks what it thinks and what it calls in the text of its answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tunesmith.inference.thinking import Thinking, find_thinking
from tunesmith.inference.tool_calls import ToolFormat, find_tool_format

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tunesmith.templates import Template


@dataclass(frozen=True)
class Manner:
    """How a model marks thoughts and calls.

    Attributes:
        tools: the format of calls; None if it writes none, or somebody else parts them.
        thinking: the marks of thoughts; None if it knows none.
        specials: ids of its special tokens, which have no text of their own, by their names.
    """

    tools: ToolFormat | None = None
    thinking: Thinking | None = None
    specials: Mapping[str, int] = field(default_factory=dict)

    def marks(self, *, calls: bool) -> tuple[str, ...]:
        """Name the special tokens by which an answer is parted.

        Args:
            calls: whether it may hold calls.
        """
        found = [*self.tools.marks] if calls and self.tools else []
        if self.thinking is not None:
            found += [self.thinking.opening, self.thinking.closing]
        return tuple(mark for mark in found if mark in self.specials)


PLAIN = Manner()


def find_manner(template: Template | None, tokenizer: PreTrainedTokenizerFast) -> Manner:
    """Find how a model marks thoughts and calls, from what its template writes."""
    added = tokenizer.added_tokens_decoder.items()
    specials = {str(token): number for number, token in added if token.special}
    return manner_of(template, tokenizer.get_vocab(), specials)


def manner_of(
    template: Template | None, vocabulary: Mapping[str, int], specials: Mapping[str, int]
) -> Manner:
    """Find the same from a vocabulary, and the tokens of it that have no text."""
    if template is None:
        return PLAIN
    tools = find_tool_format(template, vocabulary)
    return Manner(tools, find_thinking(template.source), specials)
