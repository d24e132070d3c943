"""A model of this process as an engine: whatever its architecture, one stream at a time."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tunesmith.inference.engine import Engine, Hear, Piece, Request, Speech, Work
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
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def models(self) -> Mapping[str, Speech]:
        """Return the one model."""
        return {self.model.name: ModelSpeech(self.model)}

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer when those before it are done."""
        stream = stream_answer(self.model, request.prompt, request.sampling)
        threading.Thread(target=self._tell, args=(stream, hear), daemon=True).start()
        return stream

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt."""
        return answer(self.model, prompts, sampling, rows=self.rows)

    def close(self) -> None:
        """Nothing is held but what the caller gave."""

    def _tell(self, stream: Stream, hear: Hear) -> None:
        try:
            with self._turn:
                for text in stream:
                    hear(Piece(text))
            hear(Piece("", (), stream.finish or "stop"))
        except Exception as problem:  # noqa: BLE001  handed over to whoever hears
            hear(problem)
