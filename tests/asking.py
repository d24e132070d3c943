"""Ask engines, and compare what they answer."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tunesmith.inference.engine import Engine, Piece, Request, Work
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, load_chat_model

PROMPTS = [[7, 40, 301], list(range(20, 65)), [99], list(range(100, 230, 3))]
NEAR = 1e-4
"""Logits so close that rounding decides between them."""


class Ear:
    """Somebody who hears an answer."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []
        self.problem: Exception | None = None
        self.begun, self.over = threading.Event(), threading.Event()

    def __call__(self, told: Piece | Exception) -> None:
        if isinstance(told, Exception):
            self.problem = told
        else:
            self.pieces.append(told)
        self.begun.set()
        if isinstance(told, Exception) or told.finish:
            self.over.set()

    def tokens(self) -> list[int]:
        """Wait for the end, and return what was written."""
        assert self.over.wait(60)
        if self.problem:
            raise self.problem
        return [token.id for piece in self.pieces for token in piece.tokens]

    def text(self) -> str:
        self.tokens()
        return "".join(piece.text for piece in self.pieces)


def load(folder: Path, shape: str, **changes: Any) -> ChatModel:
    torch.set_num_threads(1)
    tiny.make_model(folder, shape, seed=3, initializer_range=0.2, **changes)
    return load_chat_model(folder, precision="fp32", device="cpu")


def ask(engine: Engine, prompt: Sequence[int], **sampling: Any) -> Ear:
    return begin(engine, prompt, **sampling)[0]


def begin(engine: Engine, prompt: Sequence[int], **sampling: Any) -> tuple[Ear, Work]:
    ear = Ear()
    return ear, engine.start(Request(prompt, Sampling(**sampling)), ear)


def reference(model: ChatModel, prompt: Sequence[int], count: int) -> list[int]:
    """Let transformers write the likeliest tokens."""
    ids = torch.tensor([list(prompt)])
    written = model.model.generate(  # type: ignore[operator]
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=list(model.stop_ids) or None,
        pad_token_id=0,
    )
    tokens: list[int] = written[0, len(prompt) :].tolist()
    return [token for token in tokens if token not in model.stop_ids]


def assert_same(
    model: ChatModel, prompt: Sequence[int], ours: list[int], theirs: list[int]
) -> None:
    """Compare answers; they may part where two logits are nearly the same."""
    for place, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if mine != other:
            device = next(model.model.parameters()).device
            ids = torch.tensor([[*prompt, *ours[:place]]], device=device)
            with torch.no_grad():
                best = model.model(input_ids=ids).logits[0, -1].topk(2).values
            assert best[0] - best[1] < NEAR, (place, ours, theirs)
            print(f"a near tie after {place} tokens: {best[0] - best[1]:.1e}")
            return
    assert len(ours) == len(theirs)


def wait_until_idle(engine: Engine) -> None:
    waited = threading.Event()
    for _ in range(500):
        if not (engine.load().running or engine.load().waiting):
            return
        waited.wait(0.01)
    raise AssertionError(engine.load())


class Spelled:
    """The form of an answer that must be these tokens."""

    def __init__(self, ids: Sequence[int]) -> None:
        self.ids, self.place = list(ids), 0

    def mask(self) -> torch.Tensor:
        allowed = torch.zeros(390, dtype=torch.bool)
        allowed[self.ids[self.place]] = True
        return allowed

    def take(self, token: int) -> None:
        assert token == self.ids[self.place]
        self.place += 1

    def is_over(self) -> bool:
        return self.place == len(self.ids)
