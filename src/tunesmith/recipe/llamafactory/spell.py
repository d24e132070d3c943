"""Spell the recipe that a LLaMA-Factory file becomes, with a comment on what is not in it."""

from __future__ import annotations

import textwrap
from typing import Any

import yaml

from tunesmith.recipe.llamafactory.convert import Converted
from tunesmith.recipe.load import DEFAULT_CHOICE

WIDTH = 98


def spell_converted(converted: Converted, source: str) -> str:
    """Spell it as YAML, options with our defaults left out."""
    lines = [f"# The recipe that {source} becomes."]
    if converted.notes:
        lines += ["#", "# Not taken over, or not quite:"]
    for name, text in converted.notes.items():
        lines += textwrap.wrap(
            f"{name}: {text}", WIDTH, initial_indent="#   ", subsequent_indent="#     "
        )
    plain = _plain(converted)
    return "\n".join([*lines, "", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)])


def _plain(converted: Converted) -> dict[str, Any]:
    """Return the sections without our defaults, each with the kind it is of."""
    whole = converted.recipe.model_dump(mode="json")
    told = converted.recipe.model_dump(mode="json", exclude_defaults=True)
    for section, (tag, _) in DEFAULT_CHOICE.items():
        told[section] = {tag: whole[section][tag], **told.get(section, {})}
    quantize = whole["model"]["quantize"]
    if quantize is not None:
        told["model"]["quantize"] = quantize
    return {section: told[section] for section in whole if section in told}
