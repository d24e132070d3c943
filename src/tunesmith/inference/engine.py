"""Whoever answers for a program: the model at hand, or an engine of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tunesmith.inference.generate import Answer, answer
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel


class Engine(Protocol):
    """Answers many prompts with the weights that the model has at that moment."""

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt; the same draws for the same prompts, sampling and weights.

        Args:
            prompts: token ids; one that comes several times is answered several times.
        """


@dataclass(frozen=True)
class OwnModel(Engine):
    """A model of this process.

    Attributes:
        rows: answers written at the same time.
    """

    model: ChatModel
    rows: int

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt."""
        return answer(self.model, prompts, sampling, rows=self.rows)
