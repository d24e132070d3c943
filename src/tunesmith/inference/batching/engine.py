"""An engine of this process that writes many answers at once."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tunesmith.errors import EngineError, RequestError, TunesmithError
from tunesmith.hardware import GIB, memory_gib
from tunesmith.inference.batching.adapters import Adapters
from tunesmith.inference.batching.batch import Batch
from tunesmith.inference.batching.forward import Forward
from tunesmith.inference.batching.points import Points
from tunesmith.inference.batching.prefixes import Prefixes
from tunesmith.inference.batching.served import ServedModels
from tunesmith.inference.batching.shelves import SHORTEST, Shelves
from tunesmith.inference.batching.weights import Weights, take_weights
from tunesmith.inference.embed import check_texts, embed
from tunesmith.inference.engine import Engine, Hear, Load, Request, Speech, Work
from tunesmith.inference.generate import Answer, max_positions
from tunesmith.inference.row import Awaited, Row, check_request, sampling_of
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel, Subject, find_subject

if TYPE_CHECKING:
    import torch

ROWS_OF_CPU, ROWS_OF_GPU = 64, 256
CHUNK_OF_CPU, CHUNK_OF_GPU = 256, 2048
MEMORY_SHARE = 0.4
"""Of the memory that is free when an engine is made, what its cache may take."""
PREFIX_SHARE = 0.25
"""Of that, what beginnings of texts may take."""
MOST_FAILURES = 3
"""Steps that may fail on end before an engine gives up."""


class BatchingEngine(Engine):
    """Writes many answers at once, in a thread of its own.

    Args:
        subject: what the model was loaded from; adapters are compared with it.
        rows: answers in work at the same time; others wait. None for what suits the device.
        memory: GiB that keys and values may take; None for a share of what is free.

    Raises:
        OtherModel: if the model is none whose forward pass is written here.
    """

    takes_adapters = True

    def __init__(
        self,
        model: ChatModel,
        subject: Subject | None = None,
        *,
        rows: int | None = None,
        memory: float | None = None,
    ) -> None:
        self._weights = weights = take_weights(model.model)
        self.width = rows or (ROWS_OF_CPU if weights.device.type == "cpu" else ROWS_OF_GPU)
        self._model, self._tokenizer = model, copy.deepcopy(model.tokenizer)
        base = subject or Subject(model.name, model.folder)
        self._served = ServedModels(model, base, weights)
        self._batch = build_batch(weights, self._served.adapters, rows=self.width, memory=memory)
        self._inbox: deque[Row] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._dead: Exception | None = None
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    def models(self) -> Mapping[str, Speech]:
        """Return the models that answer; the first is the main."""
        return dict(self._served.speeches())

    def start(self, request: Request, hear: Hear) -> Work:
        """Begin an answer as soon as there is room for it.

        Raises:
            RequestError: if it asks for what cannot be given.
            EngineError: if the engine has stopped.
        """
        (row,) = self._send([(request, hear)])
        return row

    def write(self, prompts: Sequence[Sequence[int]], sampling: Sampling) -> list[Answer]:
        """Answer each prompt; nothing that was read for others is used."""
        answers = [Awaited() for _ in prompts]
        requests = [
            Request(prompt, sampling_of(sampling, place)) for place, prompt in enumerate(prompts)
        ]
        asked = [(request, one.hear) for request, one in zip(requests, answers, strict=True)]
        rows = self._send(asked, remembers=False)
        for answer in answers:
            answer.wait()
        return [row.answer() for row in rows]

    def load(self) -> Load:
        """Tell how busy it is."""
        batch = self._batch
        waiting = len(self._inbox) + len(batch.waiting)
        return Load(len(batch.slots), waiting, batch.shelves.part_in_use)

    def check(self) -> None:
        """Refuse if it has stopped.

        Raises:
            EngineError: with what failed.
        """
        if self._dead is not None:
            raise _closed(self._dead)

    def embed(self, prompts: Sequence[Sequence[int]], model: str = "") -> list[list[float]]:
        """Return the mean of a model's last hidden states of each prompt.

        Raises:
            RequestError: if there is none of that name, or a text does not fit.
        """
        with self._changed:  # an adapter that is removed meanwhile is not freed before
            adapter = self._served.find(model).adapter
            deltas = self._served.adapters.by_name.get(adapter)
        if deltas is None:
            return embed(self._model, prompts)
        check_texts(prompts, max_positions(self._model))
        points = Points(self._weights, Adapters({adapter: deltas}))
        return [points.mean(prompt, adapter) for prompt in prompts]

    def add(self, name: str, run: str) -> None:
        """Let the adapter of a run answer under a name."""
        self.put_on(name, find_subject(run))

    def put_on(self, name: str, subject: Subject, *, first: bool = False) -> None:
        """Let an adapter answer under a name, as the main model if it is to be the first."""
        self._served.put_on(name, subject, first=first)

    def remove(self, name: str) -> None:
        """Let an adapter answer no further request; those in work go on to their ends."""
        with self._changed:
            self._served.remove(name)
            if not (self._inbox or self._batch.slots or self._batch.waiting):
                self._served.forget(())

    def close(self) -> None:
        """End all work and free the weights."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _send(self, asked: Sequence[tuple[Request, Hear]], *, remembers: bool = True) -> list[Row]:
        """Hand requests over together; an adapter cannot be freed while it is looked up."""
        with self._changed:
            if self._closed or self._dead is not None:
                raise _closed(self._dead)
            rows = [self._row(request, hear) for request, hear in asked]
            for row in rows:
                row.remembers = remembers
            self._inbox.extend(rows)
            self._changed.notify()
        return rows

    def _row(self, request: Request, hear: Hear) -> Row:
        served = self._served.find(request.model)
        limit = check_request(served.model, request)
        row = Row(request, hear, self._tokenizer, stop_ids=served.model.stop_ids, limit=limit)
        row.model = served.adapter
        return row

    def _work(self) -> None:
        """Go step by step as long as there is something to do."""
        batch, failures = self._batch, 0
        while self._dead is None:
            with self._changed:
                while not (self._closed or self._inbox or batch.slots or batch.waiting):
                    self._changed.wait()
                if self._closed:
                    break
                batch.waiting.extend(self._inbox)
                self._inbox.clear()
                self._served.forget(row.model for row in batch.rows if not row.is_over)
            try:
                batch.step()
                failures = 0
            except Exception as problem:  # noqa: BLE001  told to all whose answers it ends
                for row in batch.rows:
                    row.fail(problem)
                batch.clear()
                failures += 1
                self._dead = problem if failures == MOST_FAILURES else None
        with self._changed:  # whoever sends now sees that it is over, or is told here
            left = [*batch.rows, *self._inbox]
        for row in left:
            row.fail(_closed(self._dead))
        batch.clear()


def build_batch(weights: Weights, adapters: Adapters, *, rows: int, memory: float | None) -> Batch:
    """Make room for answers.

    Args:
        memory: GiB.
    """
    free = MEMORY_SHARE * free_bytes(weights.device) if memory is None else memory * GIB
    limit = int(max(free, 4 * SHORTEST * weights.token_bytes))
    whole = rows * weights.longest * weights.token_bytes
    prefixes = Prefixes(int(min(PREFIX_SHARE * limit, whole)))
    return Batch(
        Forward(weights, adapters),
        Shelves(weights, limit - prefixes.limit),
        prefixes,
        most=rows,
        chunk=CHUNK_OF_CPU if weights.device.type == "cpu" else CHUNK_OF_GPU,
    )


def free_bytes(device: torch.device) -> int:
    """Measure the memory that is free where a model lies."""
    import torch

    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(memory_gib() * GIB)


def _closed(problem: Exception | None) -> TunesmithError:
    if problem is None:
        return RequestError("the engine is closed", hint="ask again once the server is back")
    return EngineError(
        f"the engine has stopped, as it failed {MOST_FAILURES} times on end: {problem}",
        hint="start the server again; if it goes on, serve with --engine of another kind",
    )
