"""What the engine's threads say, heard on the event loop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from functools import partial

from tunesmith.inference.engine import Engine, Piece, Request, Work
from tunesmith.serving.note import Note

Heard = Piece | Exception
SECONDS_TO_GATHER = 0.002
"""In which the pieces of a step come together, so that the loop wakes once for all of them."""


class Post:
    """Carries pieces from the engine's threads to the event loop; one call for all that wait."""

    def __init__(self) -> None:
        self._letters: deque[tuple[Job, int, Heard]] = deque()
        self._called = False

    def put(self, loop: asyncio.AbstractEventLoop, job: Job, index: int, heard: Heard) -> None:
        """Send a piece; called from any thread."""
        self._letters.append((job, index, heard))
        if not self._called:
            self._called = True
            try:
                loop.call_soon_threadsafe(loop.call_later, SECONDS_TO_GATHER, self._deliver)
            except RuntimeError:  # the loop is closed, and nobody is left to hear
                self._letters.clear()

    def _deliver(self) -> None:
        self._called = False  # first: who puts a letter in from now on calls again
        while self._letters:
            job, index, heard = self._letters.popleft()
            job.take(index, heard)


class Job:
    """The answers to one request: iterate over it for their pieces as they come.

    Attributes:
        count: how many answers it asks for.
    """

    def __init__(self, note: Note, count: int, leave: Callable[[Job], None]) -> None:
        self.count = count
        self._note, self._leave = note, leave
        self._works: list[Work] = []
        self._heard: dict[int, Piece] = {}
        self._failed: Exception | None = None
        self._counted: list[tuple[int, int]] = []
        self._prompts: list[int] = []
        self._reused: dict[int, int] = {}
        self._open = 0
        self._ended: set[int] = set()
        self._bell = asyncio.Event()

    def start(self, engine: Engine, post: Post, requests: Sequence[Request]) -> None:
        """Hand requests to the engine."""
        loop = asyncio.get_running_loop()
        asked = {id(request.prompt): len(request.prompt) for request in requests}
        self._note.prompt_tokens += sum(asked.values())  # once for all answers to one prompt
        self._prompts = [id(request.prompt) for request in requests]
        self._open = len(requests)
        for index, request in enumerate(requests):
            self._works.append(engine.start(request, partial(post.put, loop, self, index)))

    def take(self, index: int, heard: Heard) -> None:
        """Hear a piece of one of the answers; those that nobody has read yet become one."""
        if isinstance(heard, Exception):
            self.fail(heard)
            return
        if index in self._ended:
            return
        self._note.hear(len(heard.tokens))
        if heard.counted is not None:  # an engine elsewhere, which counts for itself
            self._counted.append(heard.counted)
            self._note.prompt_tokens = self._counted[0][0]
            if len(self._counted) == len(self._works):
                self._note.written = sum(written for _, written in self._counted)
        if heard.reused is not None:
            self._count_reused(self._prompts[index], heard.reused)
        before = self._heard.get(index)
        self._heard[index] = heard if before is None else _joined(before, heard)
        self._bell.set()

    def _count_reused(self, prompt: int, reused: int) -> None:
        """Count what was kept of each prompt before, and not by another answer to it."""
        self._reused[prompt] = min(reused, self._reused.get(prompt, reused))
        self._note.reused = sum(self._reused.values())

    def end(self, index: int) -> None:
        """Let an answer end of which nothing more is needed."""
        self._works[index].cancel()
        self.take(index, Piece("", (), "stop"))
        self._ended.add(index)

    def fail(self, problem: Exception) -> None:
        """Let whoever reads the pieces be told what went wrong."""
        self._failed = problem
        self._bell.set()

    async def __aiter__(self) -> AsyncIterator[tuple[int, Piece]]:
        """Yield pieces with the number of their answer, until all answers are over."""
        while self._open:
            await self._bell.wait()
            self._bell.clear()
            if self._failed is not None:
                raise self._failed
            heard, self._heard = self._heard, {}
            for index, piece in heard.items():
                self._open -= piece.finish is not None
                yield index, piece

    def close(self) -> None:
        """Stop what is still being written and give the places in the queue to others."""
        for work in self._works:
            work.cancel()
        self._leave(self)


def _joined(one: Piece, other: Piece) -> Piece:
    return replace(other, text=one.text + other.text, tokens=one.tokens + other.tokens)
