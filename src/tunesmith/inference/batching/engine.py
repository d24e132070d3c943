"""An engine of this process that writes many answers at once."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RequestError
from tunesmith.hardware import memory_gib
from tunesmith.inference.batching.adapters import Adapters
from tunesmith.inference.batching.batch import Batch
from tunesmith.inference.batching.forward import Forward
from tunesmith.inference.batching.prefixes import Prefixes
from tunesmith.inference.batching.shelves import SHORTEST, Shelves
from tunesmith.inference.batching.weights import Weights, take_weights
from tunesmith.inference.engine import Engine, Hear, Piece, Request, Speech, Work
from tunesmith.inference.generate import Answer, check_room
from tunesmith.inference.row import Row
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.speech import ModelSpeech
from tunesmith.models.chat import ChatModel

if TYPE_CHECKING:
    import torch
GIB = 1 << 30
MEMORY_SHARE = 0.4
"""Of the memory that is free when an engine is made, what its cache may take."""
PREFIX_SHARE = 0.25
"""Of that, what beginnings of texts may take."""


class BatchingEngine(Engine):
    """Writes many answers at once, in a thread of its own.

    Args:
        rows: answers in work at the same time; others wait. None for what suits the device.
        memory: GiB that keys and values may take; None for a share of what is free.

    Raises:
        OtherModel: if the model is none whose forward pass is written here.
    """

    def __init__(
        self, model: ChatModel, *, rows: int | None = None, memory: float | None = None
    ) -> None:
        weights = take_weights(model.model)
        on_cpu = weights.device.type == "cpu"
        self._model, self._tokenizer = model, copy.deepcopy(model.tokenizer)
        self._speeches: dict[str, ModelSpeech] = {model.name: ModelSpeech(model)}
        self._adapters = Adapters()
        self._batch = build_batch(
            weights,
            self._adapters,
            rows=rows or (64 if on_cpu else 256),
            memory=memory,
        )
        self._inbox: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def models(self) -> Mapping[str, Speech]:
        """Return the models that answer; the first is the main."""
        return dict(self._speeches)

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer as soon as there is room for it.

        Raises:
            RequestError: if it asks for what cannot be given.
        """
        request.sampling.check()
        row = self._row(request, hear)
        self._send([row])
        return row

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt; nothing that was read for others is used."""
        sampling.check()
        heard: list[threading.Event] = []
        problems: list[Exception] = []
        rows = []
        for place, prompt in enumerate(prompts):
            done = threading.Event()
            heard.append(done)

            def hear(told: Piece | Exception, done: threading.Event = done) -> None:
                if isinstance(told, Exception):
                    problems.append(told)
                if isinstance(told, Exception) or told.finish:
                    done.set()

            row = self._row(Request(prompt, _for_place(sampling, place)), hear)
            row.remembers = False
            rows.append(row)
        self._send(rows)
        for done in heard:
            done.wait()
        if problems:
            raise problems[0]
        return [row.answer() for row in rows]

    def close(self) -> None:
        """End all work and free the weights."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _row(self, request: Request, hear: Hear) -> Row:
        limit = min(request.sampling.max_tokens, check_room(self._model, request.prompt))
        row = Row(request, hear, self._tokenizer, stop_ids=self._model.stop_ids, limit=limit)
        return row

    def _send(self, rows: Sequence[Row]) -> None:
        with self._changed:
            if self._closed:
                raise _closed()
            self._inbox.extend(rows)
            self._changed.notify()

    def _work(self) -> None:
        """Go step by step as long as there is something to do."""
        batch = self._batch
        while True:
            with self._changed:
                while not (self._closed or self._inbox or batch.slots or batch.waiting):
                    self._changed.wait()
                if self._closed:
                    break
                batch.waiting.extend(self._inbox)
                self._inbox.clear()
            try:
                batch.step()
            except Exception as problem:  # noqa: BLE001  told to all whose answers it ends
                for row in batch.rows:
                    row.fail(problem)
                batch.clear()
        for row in [*batch.rows, *self._inbox]:
            row.fail(_closed())
        batch.clear()


def build_batch(
    weights: Weights, adapters: Adapters, *, rows: int, memory: float | None
) -> Batch:
    """Make room for answers.

    Args:
        memory: GiB.
    """
    most = rows * weights.longest * weights.token_bytes
    least = 3 * max(SHORTEST, weights.longest) * weights.token_bytes
    free = MEMORY_SHARE * free_bytes(weights.device) if memory is None else memory * GIB
    limit = int(min(most, max(free, least)))
    prefixes = Prefixes(int(PREFIX_SHARE * limit))
    return Batch(
        Forward(weights, adapters),
        Shelves(weights, limit - prefixes.limit),
        prefixes,
        most=rows,
        chunk=256 if weights.device.type == "cpu" else 2048,
    )


def free_bytes(device: torch.device) -> int:
    """Measure the memory that is free where a model lies."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(memory_gib() * GIB)


def _for_place(sampling: Sampling, place: int) -> Sampling:
    """Let each of several answers draw for itself, the same at each time."""
    if sampling.seed is None:
        return sampling
    return replace(sampling, seed=(sampling.seed * 1_000_003 + place) % (1 << 63))


def _closed() -> RequestError:
    return RequestError("the engine is closed", hint="ask again once the server is back")
