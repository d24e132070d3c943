"""What an answer is worth: one class a kind of reward."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from tunesmith.recipe.section import Count, NotNegative, Number, Positive, Section


def _is_pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as problem:
        raise ValueError(f"it is no regular expression: {problem}") from None
    return value


class Weighted(Section):
    """What all rewards share."""

    weight: Number = 1.0
    """What the reward is multiplied by before all are added up: below 0 it is a
    punishment, at 0 it is only watched."""


class ExactMatch(Weighted):
    """1 for the row's own answer, spaces around it left out, else 0."""

    kind: Literal["exact_match"] = "exact_match"
    ignore_case: bool = False
    """Take upper and lower case for the same."""


class NumberMatch(Weighted):
    """1 if the last number is the last number of the row's own answer, else 0."""

    kind: Literal["number"] = "number"
    tolerance: NotNegative = 0.0
    """How far the numbers may be apart."""


class Pattern(Weighted):
    """1 for an answer in which a regular expression is found, else 0."""

    kind: Literal["regex"] = "regex"
    pattern: Annotated[str, AfterValidator(_is_pattern)]
    """A regular expression as Python reads it; `(?s)` before it lets a dot match line breaks."""
    match: Literal["whole", "part"] = "part"
    """Whether it describes the whole answer or a part of it."""


class Length(Weighted):
    """1 for an answer of the right length, less the farther it is from it, down to 0."""

    kind: Literal["length"] = "length"
    limit: Count
    """The length; an answer twice as long is worth 0."""
    aim: Literal["at_most", "exactly"] = "at_most"
    """Whether shorter answers are as good."""
    unit: Literal["tokens", "characters"] = "tokens"
    """What is counted."""


class ValidJSON(Weighted):
    """1 for an answer that is JSON and nothing else, else 0."""

    kind: Literal["json"] = "json"
    keys: tuple[str, ...] = ()
    """Keys that it must have; it is an object then."""


class Language(Weighted):
    """Share of the answer's letters that are of a language, from 0 to 1."""

    kind: Literal["language"] = "language"
    language: Literal["zh", "en"]
    """zh counts Chinese characters, en Latin letters; digits and signs count for neither."""


class Function(Weighted):
    """What a Python function of yours says."""

    kind: Literal["function"] = "function"
    function: str = Field(pattern=r"^.+\.py:[A-Za-z_][A-Za-z0-9_]*$")
    """File and name, such as `rewards.py:polite`; it is called with keyword arguments, each a list:
    `messages`, `completions`, `completion_ids`, `references`, `cut`, and returns a number each."""


class ScoredBy(Weighted):
    """The score of a reward model."""

    kind: Literal["model"] = "model"
    model: str = Field(min_length=1)
    """A run of method.name: reward, a checkpoint of it, or a model's folder."""


class Endpoint(Weighted):
    """The score that a server on this machine returns."""

    kind: Literal["url"] = "url"
    url: str = Field(min_length=1)
    """Where texts are sent to, such as `http://127.0.0.1:8000/score`, as `{"model": "model",
    "messages": [text, ...]}`; `{"scores": [number, ...]}` is expected."""
    timeout: Positive = 60.0
    """Seconds to wait for the scores of a batch."""


Reward = (
    ExactMatch
    | NumberMatch
    | Pattern
    | Length
    | ValidJSON
    | Language
    | Function
    | ScoredBy
    | Endpoint
)
NAMED_BY_OPTION = ("function", "model", "url")
"""Kinds that need not be named: their own option does."""


def _with_kind(value: Any) -> Any:
    if isinstance(value, str):
        return {"kind": value}
    if isinstance(value, dict) and "kind" not in value:
        named = [name for name in NAMED_BY_OPTION if name in value]
        return {"kind": named[0], **value} if len(named) == 1 else value
    return value


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | dict | Weighted) else value


Named = Annotated[
    Annotated[Reward, Field(discriminator="kind")],
    BeforeValidator(_with_kind, json_schema_input_type=str | Reward),
]
Rewards = Annotated[
    tuple[Named, ...],
    Field(min_length=1),
    BeforeValidator(_as_list, json_schema_input_type=str | Reward | tuple[Named, ...]),
]
"""What every answer is judged by; the weighted scores are added up."""
