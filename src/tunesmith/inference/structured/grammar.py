"""Put together what an answer must look like: thoughts first, then calls or a form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from tunesmith.inference.structured.calls import Calling
from tunesmith.inference.structured.lark import BOUNDED, Rules, Spacing
from tunesmith.inference.structured.wanted import Wanted
from tunesmith.inference.thinking import Thinking

AFTER_THOUGHT = r"/\n{0,2}/"


@dataclass(frozen=True)
class Outline:
    """What an answer is to look like.

    Attributes:
        wanted: what is said must look so.
        calling: what must be, or may be, called; with `wanted`, calls or what is said.
        thinking: the marks of thoughts, and whether the prompt has opened one; None where the
            model does not think.
    """

    wanted: Wanted | None = None
    calling: Calling | None = None
    thinking: tuple[Thinking, bool] | None = None

    @property
    def must_call(self) -> bool:
        """Whether an answer is a call and nothing else."""
        return self.calling is not None and self.wanted is None and not self.calling.free

    def grammar(self, specials: Mapping[str, int], spacing: Spacing = BOUNDED) -> str:
        """Write its grammar.

        Args:
            specials: ids of special tokens by what they are called.

        Raises:
            RequestError: if no answer can be held to it, naming the field.
        """
        rules, parts = Rules(specials, spacing), []
        for each in (self.wanted, self.calling):
            if each is not None:
                each.check()
                parts.append(each.write(rules))
        rules.add("answer", " | ".join(parts))
        if self.thinking is None:
            return rules.text("answer")
        marks, opened = self.thinking
        rest = rules.up_to("rest_of_thought", marks.closing)
        rules.add("thought", f"{rest} {AFTER_THOUGHT}")
        if opened:
            return rules.text("thought answer")
        return rules.text(f"({rules.literal(marks.opening)} thought)? answer")
