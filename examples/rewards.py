"""Rewards for grpo.yaml: a function gets lists with one entry an answer, and returns a number each.

It may ask for `messages`, `completions`, `completion_ids`, `references` and `cut`.
"""

from __future__ import annotations

from typing import Any


def speaks_for_the_house(completions: list[str], **_: Any) -> list[float]:
    """Give 1 to an answer that begins with "We", else 0."""
    return [float(text.startswith("We ")) for text in completions]
