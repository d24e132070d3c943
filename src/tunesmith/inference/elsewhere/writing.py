"""Answers that another process writes: one thread an answer, which hears it and tells it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from tunesmith.errors import RequestError
from tunesmith.inference.elsewhere.wire import Address, Reply
from tunesmith.inference.engine import Hear, Load, Piece, Request, Work
from tunesmith.inference.generate import Answer
from tunesmith.inference.sampling import Sampling
from tunesmith.inference.sent import Sent

Ask = tuple[str, Mapping[str, Any]]
"""The path, and what is posted there."""
Read = Callable[[Iterable[Any]], Iterator[Piece]]
"""Turns a server's events into pieces; may stop before the last event, which ends the work."""


class Open:
    """The answers that a server is asked for at this moment."""

    def __init__(self) -> None:
        self._works: set[Writing] = set()

    def start(self, address: Address, ask: Ask, read: Read, hear: Hear) -> Work:
        """Ask for an answer; it is open until it ends or is left."""
        work = Writing(address, ask, read, hear, self._works.discard)
        self._works.add(work)
        work.thread.start()
        return work

    def load(self, width: int) -> Load:
        """Tell how many are being written where so many at most are."""
        count = len(self._works)
        return Load(min(count, width), max(count - width, 0))


class Writing(Work):
    """An answer that a server writes.

    Args:
        leave: called when it is over.
    """

    def __init__(
        self,
        address: Address,
        ask: Ask,
        read: Read,
        hear: Hear,
        leave: Callable[[Writing], None],
    ) -> None:
        self._address, self._ask, self._read, self._hear = address, ask, read, hear
        self._leave = leave
        self._turn = threading.RLock()
        self._reply: Reply | None = None
        self._cancelled = False
        self.thread = threading.Thread(target=self._work, daemon=True)

    def cancel(self) -> None:
        """Hang up, at which the server stops; nothing more is heard."""
        with self._turn:
            self._cancelled = True
            if self._reply is not None:
                self._reply.hang_up()

    def _work(self) -> None:
        try:
            with self._address.open(*self._ask) as reply:
                if self._begin(reply):
                    self._listen(reply)
        except Exception as problem:  # noqa: BLE001  handed over to whoever hears
            self._tell(problem)
        finally:
            self._leave(self)

    def _begin(self, reply: Reply) -> bool:
        with self._turn:
            self._reply = reply
            return not self._cancelled

    def _listen(self, reply: Reply) -> None:
        finished = False
        for piece in understood(self._read(reply.events()), self._address):
            if not self._tell(piece):
                return
            finished = piece.finish is not None
        if not finished:
            raise self._address.unreachable("the answer breaks off")

    def _tell(self, heard: Piece | Exception) -> bool:
        with self._turn:
            if not self._cancelled:
                self._hear(heard)
            return not self._cancelled


def understood(pieces: Iterator[Piece], address: Address) -> Iterator[Piece]:
    """Pass pieces on.

    Raises:
        EngineError: if what they are made of is not what such a server should say.
    """
    try:
        yield from pieces
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as problem:
        raise address.unreachable(f"{type(problem).__name__} {problem}") from problem


def held(pieces: Iterator[Piece], request: Request) -> Iterator[Piece]:
    """Pass pieces on, and see that they keep to the form that was asked for.

    Raises:
        EngineError: if they do not.
    """
    form = request.form
    if not isinstance(form, Sent):
        yield from pieces
        return
    for piece in pieces:
        form.take(piece.text)
        if piece.finish == "length" and form.is_over():
            piece = replace(piece, finish="stop")  # noqa: PLW2901
        elif piece.finish == "stop" and not request.sampling.stop:
            form.end()
        yield piece


def write_all(
    write: Callable[[Sequence[int], Sampling], Answer],
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    *,
    at_once: int,
) -> list[Answer]:
    """Answer several prompts, several at a time, each with draws of its own."""
    sampling.check()
    each = [replace(sampling, seed=seed) for seed in _seeds(sampling.seed, len(prompts))]
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(write, prompts, each))


def _seeds(seed: int | None, count: int) -> list[int | None]:
    if seed is None:
        return [None] * count
    return [(seed + place) % (1 << 63) for place in range(count)]


def check_request(request: Request, longest: int, known: Iterable[str], engine: str) -> int:
    """Return how many tokens may be written; refuse what an engine cannot do.

    Args:
        known: options of sampling that the engine takes.

    Raises:
        RequestError: naming the option, or if there is no room for an answer.
    """
    request.sampling.check()
    taken, plain = set(known), vars(Sampling())
    for name, value in vars(request.sampling).items():
        if name not in taken and value != plain[name]:
            raise RequestError(
                f"the engine {engine} does not know {name} as we mean it",
                hint="leave it out, or serve with another --engine",
                where=name,
            )
    if request.form is not None and not isinstance(request.form, Sent):
        raise RequestError(
            f"the engine {engine} chooses no tokens here",
            hint="make the form with the speech of its model",
            where="response_format",
        )
    return min(request.sampling.max_tokens, room(request.prompt, longest))


def fields_of(request: Request) -> Mapping[str, Any]:
    """Return what a server is asked besides, so that it holds the answer to its form."""
    return request.form.fields if isinstance(request.form, Sent) else {}


def room(prompt: Sequence[int], longest: int) -> int:
    """Return how many tokens fit behind a prompt.

    Raises:
        RequestError: if there is room for none, or nothing to go on from.
    """
    if not prompt:
        raise RequestError("the prompt is empty", hint="send some text to continue", where="prompt")
    if len(prompt) >= longest:
        raise RequestError(
            f"the prompt has {len(prompt):,} tokens, the model takes {longest:,} with its answer",
            hint="shorten the messages",
            where="messages",
        )
    return longest - len(prompt)


def unknown_model(name: str, known: Iterable[str]) -> RequestError:
    """Say that an engine has no model of a name."""
    return RequestError(
        f"the engine has no model {name!r}", hint=f"it has {', '.join(known)}", where="model"
    )
