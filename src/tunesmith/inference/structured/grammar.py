"""Put together what an answer must look like: thoughts first, then calls or a form."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.inference.structured.calls import Calling
from tunesmith.inference.structured.lark import Rules
from tunesmith.inference.structured.wanted import Wanted
from tunesmith.inference.thinking import Thinking

AFTER_THOUGHT = r"/\n{0,2}/"


def write_grammar(
    wanted: Wanted | None,
    calling: Calling | None,
    thinking: tuple[Thinking, bool] | None,
    specials: Mapping[str, int],
) -> str:
    """Write the grammar of an answer.

    Args:
        wanted: what is said must look so.
        calling: what must be, or may be, called; with `wanted`, calls or what is said.
        thinking: the marks of thoughts, and whether the prompt has opened one; None where the
            model does not think.
        specials: ids of special tokens by what they are called.

    Raises:
        RequestError: if it cannot be held to, naming the field.
    """
    rules, parts = Rules(specials), []
    for each in (wanted, calling):
        if each is not None:
            each.check()
            parts.append(each.write(rules))
    rules.add("answer", " | ".join(parts))
    if thinking is None:
        return rules.text("answer")
    marks, opened = thinking
    rest = rules.up_to("rest_of_thought", marks.closing)
    rules.add("thought", f"{rest} {AFTER_THOUGHT}")
    if opened:
        return rules.text("thought answer")
    return rules.text(f"({rules.literal(marks.opening)} thought)? answer")
