"""Rewards for grpo.yaml: a function gets lists with one entry an answer, and returns a number each.

It may ask for `messages`, `completions`, `completion_ids`, `references` and `cut`.
"""

from __future__ import annotations

import re
from typing import Any

CUSTOMER = re.compile(r"\byour?\b|您", re.IGNORECASE)


def speaks_to_the_customer(completions: list[str], **_: Any) -> list[float]:
    """Give 1 to an answer that says "you" or "your", else 0."""
    return [float(CUSTOMER.search(text) is not None) for text in completions]
