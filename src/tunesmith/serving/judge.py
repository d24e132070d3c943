"""A reward model that scores what it is sent."""

from __future__ import annotations

from collections.abc import Callable

from tunesmith.models.chat import RewardModel
from tunesmith.serving.limits import MAX_WAITING
from tunesmith.serving.queue import Queue


class Judge(Queue):
    """Score with a reward model, one request at a time.

    Attributes:
        name: what clients call it.
    """

    def __init__(self, model: RewardModel, name: str, *, max_waiting: int = MAX_WAITING) -> None:
        super().__init__(max_waiting=max_waiting)
        self.model, self.name = model, name

    def names(self) -> list[str]:
        """List the one name."""
        return [self.name]

    async def score(self, judged: Callable[[], list[float]], seconds: float) -> list[float]:
        """Score in the judge's own thread.

        Raises:
            RequestError: if it takes too long.
        """
        return await self.work("scores", judged, seconds, "messages")
