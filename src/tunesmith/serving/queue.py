"""Places for requests: so many in work, so many waiting, and no more."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from tunesmith.errors import RequestError
from tunesmith.inference.engine import Load
from tunesmith.serving.jobs import Job
from tunesmith.serving.limits import BESIDE, MAX_WAITING
from tunesmith.serving.note import Note
from tunesmith.serving.timed import TimedPool

Kind = Literal["forms", "embeddings", "adapters", "scores"]
Made = TypeVar("Made")
STAMP = re.compile(r"^\d{4}-\d{2}-\d{2}-\d{4}-")
"""How names of runs begin: with the minute in which they were made."""


class Busy(RequestError):
    """More requests wait than will be answered soon."""


class Stopping(RequestError):
    """The server is on its way out."""


class UnknownModel(RequestError):
    """A request names a model that is not served."""


class Queue:
    """Whoever answers requests, a bounded number at once.

    Attributes:
        stopping: whether no further request is taken.
        taken: how many of the places are taken.
    """

    def __init__(self, *, max_waiting: int = MAX_WAITING) -> None:
        self.stopping, self.taken = False, 0
        self._max_waiting = max_waiting
        self._jobs: set[Job] = set()
        self._beside = {kind: TimedPool(threads, kind) for kind, threads in BESIDE.items()}

    @property
    def width(self) -> int:
        """How many answers are in work at the same time."""
        return 1

    @property
    def places(self) -> int:
        """How many answers may be in work or wait."""
        return self.width + self._max_waiting

    @property
    def refuses(self) -> bool:
        """Whether requests find no room."""
        return self.stopping or self.taken >= self.places

    def names(self) -> list[str]:
        """List what clients may call the models, the main one first."""
        raise NotImplementedError

    def full_name(self, name: str, among: Sequence[str] = ()) -> str:
        """Return what a model is called that a request names.

        The last part of a run's name is enough if only one has it, as on the command line.

        Args:
            among: all names, where they are known already.

        Raises:
            UnknownModel: if there is none of that name.
        """
        names = among or self.names()
        if name in names:
            return name
        called = [one for one in names if STAMP.sub("", one) == name]
        if len(called) == 1:
            return called[0]
        raise self.unknown(name)

    def unknown(self, name: str) -> UnknownModel:
        """Say that there is no model of a name."""
        names = self.names()
        told = "the one that is served is" if len(names) == 1 else "there are"
        return UnknownModel(
            f"there is no model {name!r} here",
            hint=f"{told} {', '.join(map(repr, names))}",
            where="model",
        )

    def enter(self, note: Note, name: str, count: int = 1) -> Job:
        """Take places in the queue until the request is over.

        Args:
            name: what clients call the model that answers.

        Raises:
            Busy: if too many wait.
            RequestError: if so many never find room.
        """
        if count > self.places:
            raise RequestError(
                f"{count} answers at once are more than the {self.places} that may wait",
                hint="ask for fewer",
                where="n",
            )
        self.check_room(count)
        note.model = name
        job = Job(note, count, self._leave)
        self._jobs.add(job)
        self.taken += count
        note.ends.callback(job.close)
        return job

    def _leave(self, job: Job) -> None:
        """Give the places of a request to others."""
        if job in self._jobs:
            self._jobs.remove(job)
            self.taken -= job.count

    def check_room(self, count: int = 1) -> None:
        """Refuse requests that would wait too long.

        Raises:
            Busy: if too many wait.
        """
        if self.taken + count > self.places:
            raise Busy(
                f"{max(self.taken - self.width, 0)} requests wait already",
                hint="try again in a second",
                where="queue",
            )

    def check_stopping(self) -> None:
        """Refuse requests that come too late.

        Raises:
            Stopping: if the server is on its way out.
        """
        if self.stopping:
            raise Stopping("the server stops", hint="ask another one, or later")

    def check_ready(self) -> None:
        """Refuse if requests are not answered.

        Raises:
            Stopping: if the server is on its way out.
        """
        self.check_stopping()

    async def work(self, kind: Kind, made: Callable[[], Made], seconds: float, where: str) -> Made:
        """Do some work beside the event loop.

        Raises:
            RequestError: if it takes too long.
        """
        return await in_time(self._beside[kind], made, seconds, where)

    def load(self) -> Load:
        """Tell how many answers are in work and how many wait."""
        running = min(self.taken, self.width)
        return Load(running, self.taken - running)

    def stop(self) -> None:
        """End all answers that are still in work."""
        for job in tuple(self._jobs):
            job.fail(Stopping("the server stops", hint="ask another one, or later"))

    def close(self) -> None:
        """Free what answers."""
        for pool in self._beside.values():
            pool.close()


async def in_time(pool: TimedPool, made: Callable[[], Made], seconds: float, where: str) -> Made:
    """Do some work in a thread of a pool.

    Raises:
        RequestError: if it takes too long.
    """
    try:
        return await pool.run(made, seconds)
    except TimeoutError:
        raise RequestError(
            f"preparing {where} took more than {seconds:.0f} seconds",
            hint="shorten it",
            where=where,
        ) from None
