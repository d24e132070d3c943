"""One model, one answer at a time, and a short queue; never on the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakSet

from tunesmith.data.tokens import encode
from tunesmith.errors import RequestError
from tunesmith.inference.generate import (
    Stream,
    check_room,
    encode_prompt,
    max_positions,
    stream_answer,
)
from tunesmith.inference.load import choose_sampling
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import ChatModel

MAX_WAITING = 32


class Busy(RequestError):
    """More requests wait than will be answered soon."""


@dataclass(eq=False)
class Asked:
    """A request that can be answered: its prompt fits and its options mean something.

    It has a place in the queue for as long as it exists and is not answered.
    """

    sampling: Sampling
    prompt: Sequence[int] = ()


class Service:
    """Answer requests in turn.

    Attributes:
        name: what clients call the model.

    Raises:
        ModelError: if the model's own way of sampling means nothing.
    """

    def __init__(self, model: ChatModel, name: str) -> None:
        self.model, self.name = model, name
        self._turn = asyncio.Lock()
        self._tokenizing = threading.Lock()
        self._waiting: WeakSet[Asked] = WeakSet()
        self._max_characters = max_positions(model) * max(map(len, model.tokenizer.get_vocab()))
        choose_sampling(model, {})

    async def prepare(
        self, asked: str | Sequence[Mapping[str, str]], options: Mapping[str, Any]
    ) -> Asked:
        """Tokenize a request and check it, before anything is sent back.

        Args:
            asked: messages, or a text: a question where the model has a chat template, else a
                text to continue.

        Raises:
            Busy: if too many wait.
            RequestError: if the prompt is empty or too long, an option means nothing, or messages
                are sent to a model that only continues text.
            DataError: if the template refuses the messages.
        """
        request = Asked(choose_sampling(self.model, options))
        self._check(asked)
        self._queue(request)
        request.prompt = await asyncio.to_thread(self._tokenize, asked)
        check_room(self.model, request.prompt)
        return request

    def _check(self, asked: str | Sequence[Mapping[str, str]]) -> None:
        """Refuse what can be told without the work of tokenizing it, for which others wait."""
        if not isinstance(asked, str) and self.model.template is None:
            raise RequestError(
                "the model has no chat template, so it can only continue text",
                hint="use /generate with a prompt",
                where="messages",
            )
        texts = [asked] if isinstance(asked, str) else [m["content"] for m in asked]
        if (length := sum(map(len, texts))) > self._max_characters:
            raise RequestError(
                f"the prompt has {length:,} characters, the model takes "
                f"{max_positions(self.model):,} tokens with its answer",
                hint="shorten the messages",
                where="messages",
            )

    def _queue(self, request: Asked) -> None:
        if len(self._waiting) >= MAX_WAITING:
            raise Busy(
                f"{len(self._waiting)} requests wait already",
                hint="try again in a second",
                where="queue",
            )
        self._waiting.add(request)

    def _tokenize(self, asked: str | Sequence[Mapping[str, str]]) -> list[int]:
        with self._tokenizing:
            if not isinstance(asked, str):
                return encode_prompt(self.model, asked)
            if self.model.template is None:
                return encode(self.model.tokenizer, asked)
            return encode_prompt(self.model, [{"role": "user", "content": asked}])

    @asynccontextmanager
    async def answering(self, asked: Asked) -> AsyncIterator[Answering]:
        """Wait for the turn and start to answer; leaving the block stops the work."""
        stream = stream_answer(self.model, asked.prompt, asked.sampling)
        try:
            await self._turn.acquire()
        finally:
            self._waiting.discard(asked)
        try:
            yield Answering(stream)
        finally:
            self._free_after(stream)

    def _free_after(self, stream: Stream) -> None:
        """Stop an answer, and give the turn to the next request when the model rests."""
        stream.cancel()
        resting = asyncio.get_running_loop().run_in_executor(None, stream.close)
        resting.add_done_callback(lambda _: self._turn.release())


class Answering:
    """An answer in work: iterate over it for pieces of text."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    async def __aiter__(self) -> AsyncIterator[str]:
        """Yield pieces as they come, leaving the event loop free."""
        pieces = iter(self.stream)
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            yield piece
