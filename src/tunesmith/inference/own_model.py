"""A model of this process as an engine: whatever its architecture, one stream at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tunesmith.inference.embed import embed
from tunesmith.inference.engine import Engine, Hear, Piece, Request, Speech, Token, Work
from tunesmith.inference.generate import Answer, Stream, answer, stream_answer
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.speech import ModelSpeech
from tunesmith.models.chat import ChatModel


@dataclass(frozen=True)
class OwnModel(Engine):
    """A model of this process, through transformers' `generate`.

    Attributes:
        rows: answers written at the same time by `write`.
    """

    model: ChatModel
    rows: int
    width: int = 1
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def models(self) -> Mapping[str, Speech]:
        """Return the one model."""
        return self._speeches

    @cached_property
    def _speeches(self) -> dict[str, Speech]:
        return {self.model.name: ModelSpeech(self.model)}

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer when those before it are done."""
        stream = stream_answer(self.model, request.prompt, request.sampling)
        threading.Thread(target=self._tell, args=(stream, hear), daemon=True).start()
        return stream

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt."""
        return answer(self.model, prompts, sampling, rows=self.rows)

    def embed(self, prompts: Sequence[Sequence[int]], model: str = "") -> list[list[float]]:
        """Return the mean of the last hidden states of each prompt."""
        with self._turn:
            return embed(self.model, prompts)

    def close(self) -> None:
        """Nothing is held but what the caller gave."""

    def _tell(self, stream: Stream, hear: Hear) -> None:
        told = 0
        try:
            with self._turn:
                for text in stream:
                    tokens, told = stream.tokens[told:], len(stream.tokens)
                    hear(Piece(text, tuple(map(Token, tokens))))
            rest = tuple(map(Token, stream.tokens[told:]))
            hear(Piece("", rest, stream.finish or "stop"))
        except Exception as problem:  # noqa: BLE001  handed over to whoever hears
            hear(problem)
