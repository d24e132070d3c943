"""Let a request in: find who answers it, how, and places in the queue."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith.inference.sampling import Sampling
from tunesmith.serving.jobs import Job
from tunesmith.serving.note import Note
from tunesmith.serving.service import Service, Speaker, choose_sampling


class Asking(Protocol):
    """What all bodies that ask for an answer have."""

    @property
    def model(self) -> str | None:
        """What the client calls the model; the main one if it does not say."""

    def check(self) -> None:
        """Refuse what contradicts itself."""

    def sampling(self) -> dict[str, Any]:
        """Return what was given, by the names that answers are sampled with."""


@dataclass(frozen=True)
class Opened:
    """A request that was let in."""

    speaker: Speaker
    sampling: Sampling
    job: Job


def let_in(body: Asking, note: Note, service: Service, count: int = 1) -> Opened:
    """Check a request and take its places.

    Args:
        count: how many answers it asks for.

    Raises:
        RequestError: naming what cannot be done.
    """
    service.engine.check_writes()
    body.check()
    speaker = service.find(body.model)
    sampling = choose_sampling(speaker.speech, service.usual, body.sampling())
    return Opened(speaker, sampling, service.enter(note, speaker.name, count))
