"""A model of this process as an engine, through transformers' `generate`: any architecture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.inference.embed import embed
from tunesmith.inference.engine import Engine, Hear, Load, Request, Speech, Work
from tunesmith.inference.generate import Answer, answer
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.speech import ModelSpeech
from tunesmith.inference.turns import Turns
from tunesmith.models.chat import ChatModel


class OwnModel(Engine):
    """A model of this process, through transformers' `generate`.

    Args:
        rows: answers written at the same time.
    """

    def __init__(self, model: ChatModel, rows: int) -> None:
        self.model, self.rows, self.width = model, rows, rows
        self._turns = Turns(model, rows)
        self._speech: ModelSpeech | None = None

    def models(self) -> Mapping[str, Speech]:
        """Return the one model."""
        self._speech = self._speech or ModelSpeech(self.model)
        return {self.model.name: self._speech}

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer when those before it are done, together with those that wait too."""
        return self._turns.start(request, hear)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt."""
        with self._turns.turn:
            return answer(self.model, prompts, sampling, rows=self.rows)

    def load(self) -> Load:
        """Tell how busy it is."""
        return self._turns.load()

    def embed(self, prompts: Sequence[Sequence[int]], model: str = "") -> list[list[float]]:
        """Return the mean of the last hidden states of each prompt."""
        with self._turns.turn:
            return embed(self.model, prompts)

    def close(self) -> None:
        """End all work."""
        self._turns.close()
