"""An answer that a model wrote while it learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """An answer to be judged.

    Attributes:
        messages: the conversation before it, role and content each, and media, what they show.
        prompt: the same as the model read it, special tokens included.
        completion: the answer, special tokens left out.
        written: the answer as the model wrote it, special tokens included.
        completion_ids: its tokens, the one that ends it included.
        reference: the answer of the row, if it has one.
        cut: whether it was cut off before it ended.
    """

    messages: Sequence[Mapping[str, Any]]
    prompt: str
    completion: str
    written: str
    completion_ids: Sequence[int]
    reference: str | None = None
    cut: bool = False
