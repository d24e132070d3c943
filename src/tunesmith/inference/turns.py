"""Answer requests with transformers' `generate`: those that wait together, one batch at a time."""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RequestError
from tunesmith.inference.choosing import choose
from tunesmith.inference.engine import Hear, Load, Request, Token
from tunesmith.inference.generate import generate, max_positions
from tunesmith.inference.row import Row, check_request
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel

if TYPE_CHECKING:
    import torch


class Turns:
    """A thread that answers what waits, up to so many at a time.

    Every token is chosen here, so that each answer has options of its own; `generate` only reads.

    Args:
        rows: answers written at the same time.
    """

    def __init__(self, model: ChatModel, rows: int) -> None:
        self.model, self.rows = model, rows
        self.turn = threading.Lock()
        self._waiting: deque[Row] = deque()
        self._working: list[Row] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None
        # The model's own one serves whoever asks, in other threads.
        self._tokenizer = copy.deepcopy(model.tokenizer)

    def start(self, request: Request, hear: Hear) -> Row:
        """Begin an answer when those before it are done.

        Raises:
            RequestError: if it asks for what cannot be given.
        """
        limit = check_request(self.model, request)
        if request.model not in ("", self.model.name):
            raise RequestError(
                f"there is no model {request.model}",
                hint=f"ask {self.model.name}",
                where="model",
            )
        with self._changed:
            if self._closed:
                raise _closed()
            row = Row(request, hear, self._tokenizer, stop_ids=self.model.stop_ids, limit=limit)
            # Behind a long turn, cancelled ones would pile up without end.
            self._waiting = deque(each for each in self._waiting if not each.is_over)
            self._waiting.append(row)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
                self._thread.start()
            self._changed.notify()
        return row

    def load(self) -> Load:
        """Tell how busy it is."""
        return Load(len(self._working), len(self._waiting))

    def close(self) -> None:
        """End all work."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not (self._closed or self._waiting):
                    self._changed.wait()
                if self._closed:
                    break
                working = self._working = self._take()
            if working:
                self._answer(working)
            self._working = []
        for row in self._waiting:
            row.fail(_closed())

    def _take(self) -> list[Row]:
        """Take answers that wait, as long as what is written beside ended ones has positions."""
        taken: list[Row] = []
        longest, width, limit = max_positions(self.model), 0, 0
        while self._waiting and len(taken) < self.rows:
            row = self._waiting[0]
            width, limit = max(width, row.num_prompt), max(limit, row.limit)
            if taken and width + limit > longest:
                break
            self._waiting.popleft()
            if not row.is_over:
                taken.append(row)
        return taken

    def _answer(self, rows: Sequence[Row]) -> None:
        prompts, limit = [row.prompt for row in rows], max(row.limit for row in rows)
        problem: Exception = _closed()
        try:
            with self.turn:
                generate(self.model, prompts, Sampling(), limit, self._listen(rows))
        except Exception as caught:  # noqa: BLE001  told to all whose answers it ends
            problem = caught
        for row in rows:  # those that are not over by themselves
            row.fail(problem)

    def _listen(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Return what `generate` is to ask before and after each token."""
        import torch
        from transformers import (
            LogitsProcessor,
            LogitsProcessorList,
            StoppingCriteria,
            StoppingCriteriaList,
        )

        def closed() -> bool:
            return self._closed

        class Chosen(LogitsProcessor):
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                going = [place for place, row in enumerate(rows) if not row.is_over]
                tokens = choose([rows[place].way for place in going], scores[going])
                forced = torch.full_like(scores, float("-inf"))
                forced[:, 0] = 0.0  # of those that are over
                for place, token in zip(going, tokens, strict=True):
                    if isinstance(token, Token):
                        forced[place, token.id] = 1.0
                    rows[place].take(token)
                return forced

        class Over(StoppingCriteria):
            def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
                over = [closed() or row.is_over for row in rows]
                return torch.tensor(over, device=input_ids.device)

        return {
            "logits_processor": LogitsProcessorList([Chosen()]),
            "stopping_criteria": StoppingCriteriaList([Over()]),
        }


def _closed() -> RequestError:
    return RequestError("the engine is closed", hint="ask again once the server is back")
