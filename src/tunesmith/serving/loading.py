"""What answers while the model loads: that the server lives, and that all others come again."""

from __future__ import annotations

from typing import NoReturn

from starlette.types import ASGIApp, Receive, Scope, Send

from tunesmith.errors import RequestError
from tunesmith.serving.queue import Queue


class NotReady(RequestError):
    """The model is not loaded yet."""


class Loading(Queue):
    """Nobody who could answer yet."""

    name = ""

    @property
    def refuses(self) -> bool:
        """Whether requests are refused: all are."""
        return True

    def names(self) -> list[str]:
        """List no model."""
        return []

    def check_stopping(self) -> NoReturn:
        """Refuse whatever comes.

        Raises:
            NotReady: always.
        """
        raise NotReady("the model is being loaded", hint="ask again in a few seconds")


class Entrance:
    """Hands requests to the application that answers now, which may change.

    Attributes:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand a request on."""
        await self.app(scope, receive, send)
