"""Rewards that are worked out from the answer alone, or from the row's own answer beside it."""

from __future__ import annotations

import json
import re
import unicodedata

from tunesmith.methods.rewards.sample import Sample
from tunesmith.recipe.rewards import (
    ExactMatch,
    Language,
    Length,
    NumberMatch,
    Pattern,
    Reward,
    ValidJSON,
)

NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")
LATIN, HAN = "LATIN ", "CJK UNIFIED IDEOGRAPH"


def exact_match(options: ExactMatch, sample: Sample) -> float:
    """Return 1 for the row's own answer, else 0."""
    given, wanted = sample.completion.strip(), reference_of(sample).strip()
    if options.ignore_case:
        given, wanted = given.casefold(), wanted.casefold()
    return float(given == wanted)


def number_match(options: NumberMatch, sample: Sample) -> float:
    """Return 1 if the last number is that of the row's own answer, else 0."""
    wanted = last_number(reference_of(sample))
    if wanted is None:
        raise ValueError(f"the row's answer holds no number: {sample.reference!r}")
    given = last_number(sample.completion)
    return float(given is not None and abs(given - wanted) <= options.tolerance)


def lacking(options: Reward, reference: str | None) -> str:
    """Say what a row lacks that a reward compares with; empty if nothing."""
    if not isinstance(options, ExactMatch | NumberMatch):
        return ""
    if reference is None:
        return "has no answer of its own"
    numbers = isinstance(options, ExactMatch) or last_number(reference) is not None
    return "" if numbers else "has an answer without a number"


def pattern(options: Pattern, sample: Sample) -> float:
    """Return 1 where the expression is found, else 0."""
    find = re.fullmatch if options.match == "whole" else re.search
    return float(find(options.pattern, sample.completion) is not None)


def length(options: Length, sample: Sample) -> float:
    """Return 1 for the right length, 0 for one that is off by as much."""
    counted = sample.completion_ids if options.unit == "tokens" else sample.completion
    over = len(counted) - options.limit
    off = max(over, 0) if options.aim == "at_most" else abs(over)
    return max(0.0, 1.0 - off / options.limit)


def valid_json(options: ValidJSON, sample: Sample) -> float:
    """Return 1 for JSON that has all keys, else 0."""
    try:
        value = json.loads(sample.completion, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    has_keys = isinstance(value, dict) and all(key in value for key in options.keys)
    return float(has_keys or not options.keys)


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def language(options: Language, sample: Sample) -> float:
    """Return the share of letters that are of a language; 0 where there are none."""
    begins = {"zh": HAN, "en": LATIN}[options.language]
    letters = [letter for letter in sample.completion if letter.isalpha()]
    ours = sum(unicodedata.name(letter, "").startswith(begins) for letter in letters)
    return ours / len(letters) if letters else 0.0


def last_number(text: str) -> float | None:
    """Read the last number of a text, wide digits too; commas may part thousands."""
    found = NUMBER.findall(unicodedata.normalize("NFKC", text))
    return float(found[-1].replace(",", "")) if found else None


def reference_of(sample: Sample) -> str:
    """Return the row's own answer.

    Raises:
        ValueError: if it has none.
    """
    if sample.reference is None:
        raise ValueError("the row has no answer of its own to compare with")
    return sample.reference
