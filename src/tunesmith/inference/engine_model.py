"""A model that an engine answers for, to talk with."""

from __future__ import annotations

import queue
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.inference.choose import Engines, choose_engine, only_embeds
from tunesmith.inference.engine import Engine, Piece, Request, Work
from tunesmith.inference.generate import Answer, Messages, Tools
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import Subject, find_subject
from tunesmith.models.gguf_file import find_gguf

NOTHING: Mapping[str, Any] = {}


class EngineModel:
    """The main model of an engine.

    Raises:
        ModelError: if it only continues text.
    """

    senses = None

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.name, self.speech = next(iter(engine.models().items()))
        if not self.speech.can_chat:
            raise ModelError(
                "the model has no chat template, so it can only continue text",
                hint="name another model, or export it again with a template",
                where=self.name,
            )

    def encode(self, messages: Messages, tools: Tools = ()) -> list[int]:
        """Write a conversation as the model's template does; tokenize it."""
        return self.speech.render(messages, tools, NOTHING)

    def stream(self, prompt: Sequence[int], sampling: Sampling) -> Generator[str, None, None]:
        """Answer piece by piece; whoever stops reading stops the answer.

        Raises:
            RequestError: at once, if there is no room for an answer.
        """
        heard: queue.Queue[Piece | Exception] = queue.Queue()
        work = self.engine.start(Request(prompt, sampling), heard.put)
        return _pieces(work, heard)

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt."""
        return self.engine.write(prompts, sampling)

    def close(self) -> None:
        """End the engine."""
        self.engine.close()


def open_model(name: str | Path | Subject, rows: int) -> EngineModel:
    """Let the engine that serves a model, or a GGUF, answer for it.

    Args:
        rows: answers written at the same time.

    Raises:
        TunesmithError: if the engine is not there, or cannot load it.
    """
    _refuse_embedder(name)
    engine = choose_engine(name, Engines(rows=rows)).engine
    try:
        return EngineModel(engine)
    except BaseException:
        engine.close()
        raise


def _refuse_embedder(name: str | Path | Subject) -> None:
    if not isinstance(name, Subject) and find_gguf(name) is not None:
        return
    subject = find_subject(name)
    if only_embeds(subject):
        raise ModelError(
            "an embedding model writes no answers",
            hint="name a model that writes; `tunesmith serve` gives its points",
            where=subject.name,
        )


def _pieces(work: Work, heard: queue.Queue[Piece | Exception]) -> Generator[str, None, None]:
    try:
        while True:
            told = heard.get()
            if isinstance(told, Exception):
                raise told
            if told.text:
                yield told.text
            if told.finish is not None:
                return
    finally:
        work.cancel()
