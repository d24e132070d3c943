"""An embedding model as an engine: it makes points of texts and writes nothing."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence

from tunesmith.data.tokens import encode_labelled, put_around
from tunesmith.errors import RequestError
from tunesmith.inference.embed import check_texts
from tunesmith.inference.engine import Engine, Form, Hear, Request, Speech, Work
from tunesmith.inference.generate import Answer
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent
from tunesmith.inference.speech import ModelSpeech
from tunesmith.inference.structured import Outline
from tunesmith.models.chat import ChatModel
from tunesmith.models.encoder import Encoder

ANY_LENGTH = 1 << 30


class EmbeddingSpeech(ModelSpeech):
    """How an embedding model is spoken with: in whole texts."""

    def __init__(self, encoder: Encoder) -> None:
        model, tokenizer = encoder.model, encoder.tokenizer
        chat = ChatModel(encoder.name, model, tokenizer, None, (), encoder.folder)
        super().__init__(chat, longest=encoder.longest)
        self._prefix = encoder.pooling.prefix
        self.opening, self.closing = put_around(tokenizer)

    def encode(self, text: str) -> list[int]:
        """Tokenize a text, without what stands around it; special tokens are none in it."""
        with self._lock:
            (row,) = encode_labelled(self._model.tokenizer, [self._prefix + text], ANY_LENGTH)
        return row.ids[len(self.opening) : len(row.ids) - len(self.closing)]

    def forms(self, outline: Outline, count: int) -> Sequence[Form | Sent]:
        """Refuse: nothing is written."""
        raise _writes_nothing()


class EmbeddingEngine(Engine):
    """Makes points, one text at a time."""

    width = 1

    def __init__(self, encoder: Encoder) -> None:
        self._encoder, self._speech = encoder, EmbeddingSpeech(encoder)
        self._turn = threading.Lock()

    def models(self) -> Mapping[str, Speech]:
        """Return the one model."""
        return {self._encoder.name: self._speech}

    def start(self, request: Request, hear: Hear) -> Work:
        """Refuse: nothing is written."""
        raise _writes_nothing()

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Refuse: nothing is written."""
        raise _writes_nothing()

    def check_writes(self) -> None:
        """Refuse: nothing is written."""
        raise _writes_nothing()

    def embed(self, prompts: Sequence[Sequence[int]], model: str = "") -> list[list[float]]:
        """Return the point of each text."""
        check_texts(prompts, self._encoder.longest)
        return [self._point(prompt) for prompt in prompts]

    def _point(self, prompt: Sequence[int]) -> list[float]:
        import torch

        model, kind = self._encoder.model, self._encoder.pooling.kind
        device = next(model.parameters()).device
        with self._turn, torch.no_grad():
            ids = torch.tensor([list(prompt)], device=device)
            read = model(input_ids=ids, attention_mask=torch.ones_like(ids))
        states = read.last_hidden_state[0].float()
        point = states.mean(dim=0) if kind == "mean" else states[0 if kind == "first" else -1]
        found: list[float] = point.tolist()
        return found

    def close(self) -> None:
        """Nothing is in work."""


def _writes_nothing() -> RequestError:
    return RequestError(
        "the model makes embeddings and writes nothing", hint="ask /v1/embeddings", where="model"
    )
