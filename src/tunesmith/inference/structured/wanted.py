"""What an answer must look like, checked before it is begun."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import orjson

from tunesmith.errors import RequestError, require
from tunesmith.inference.structured.lark import Rules, quote, with_options

LONGEST = 1 << 18
"""Bytes of a schema, a pattern, choices or a grammar."""
DEEPEST = 100
"""How far a schema may lie in itself: what reads it takes 127."""


@dataclass(frozen=True)
class Wanted:
    r"""A form that is asked for; in patterns, \d means 0 to 9.

    Attributes:
        value: a JSON schema, a pattern, choices, or a grammar (Lark, or the GBNF of llama.cpp).
        where: the field that asks for it.
    """

    kind: Literal["json", "regex", "choice", "grammar"]
    value: Any
    where: str

    def check(self) -> None:
        """Refuse what cannot be held to.

        Raises:
            RequestError: naming the field, and what of it cannot.
        """
        if self.kind == "json":
            check_schema(self.value, self.where)
            return
        _check_size(self.value, self.where)
        matcher = require("llguidance", extra="serve").LLMatcher
        grammar = "" if self.kind == "choice" else self.value
        if self.kind == "choice":
            if not self.value or not all(self.value):
                raise _refuse("there is nothing to choose", "give texts that are not empty", self)
            return
        if self.kind == "regex":
            grammar = matcher.grammar_from_regex(grammar)
        elif "::=" in grammar:
            grammar = _read_gbnf(self)
        if problem := problem_of(grammar):
            raise _refuse(problem, "mend it, or ask for JSON of a schema instead", self)

    def write(self, rules: Rules) -> str:
        """Add its rules; return what stands for it in others."""
        if self.kind == "json":
            return rules.add("wanted_json", rules.json_of(self.value))
        if self.kind == "choice":
            return rules.add("WANTED_CHOICE", " | ".join(map(quote, self.value)))
        if self.kind == "regex":
            spelled = require("llguidance", extra="serve").regex_to_lark(self.value, "d")
            return rules.add("WANTED_PATTERN", f"/{spelled}/")
        inner = _read_gbnf(self) if "::=" in self.value else self.value
        return rules.add("wanted_grammar", f"%lark {{\n{inner}\n}}")


def check_schema(schema: Any, where: str) -> None:
    """Refuse a JSON schema that cannot be held to, rather than hold to a part of it.

    Raises:
        RequestError: naming the field, and what of it cannot.
    """
    if not isinstance(schema, Mapping | bool):
        raise RequestError(
            "a JSON schema is an object", hint='such as {"type": "object"}', where=where
        )
    _check_size(schema, where)
    matcher = require("llguidance", extra="serve").LLMatcher
    if problem := problem_of(
        matcher.grammar_from_json_schema(orjson.dumps(with_options(schema)).decode())
    ):
        raise RequestError(
            f"no answer can be held to the schema: {problem}",
            hint="leave that out, or say it in another way",
            where=where,
        )


def problem_of(grammar: str) -> str:
    """Say what is wrong with a grammar; nothing if it can be held to."""
    matcher = require("llguidance", extra="serve").LLMatcher
    failed, messages = matcher.validate_grammar_with_warnings(grammar)
    return " ".join(str(messages[0]).split())[:500] if failed else ""


def _check_size(value: Any, where: str) -> None:
    if _depth(value) > DEEPEST:
        raise RequestError(
            f"this is nested more than {DEEPEST} deep", hint="flatten it", where=where
        )
    if (size := len(orjson.dumps(value))) > LONGEST:
        raise RequestError(
            f"this has {size:,} bytes", hint=f"send at most {LONGEST:,}", where=where
        )


def _depth(value: Any) -> int:
    """Count how many values lie in each other at most; stops where there are too many."""
    depth, layer = 0, [value]
    while layer and depth <= DEEPEST:
        depth += 1
        inner: list[Any] = []
        for each in layer:
            if isinstance(each, Mapping):
                inner += each.values()
            elif isinstance(each, Sequence) and not isinstance(each, str):
                inner += each
        layer = inner
    return depth


def _read_gbnf(wanted: Wanted) -> str:
    reader = require("llguidance.gbnf_to_lark", extra="serve")
    try:
        return str(reader.gbnf_to_lark(wanted.value))
    except Exception as problem:  # noqa: BLE001  the library raises many kinds
        raise _refuse(str(problem), "mend it, or write it in Lark's dialect", wanted) from None


def _refuse(what: str, hint: str, wanted: Wanted) -> RequestError:
    return RequestError(f"no answer can be held to it: {what}", hint=hint, where=wanted.where)
