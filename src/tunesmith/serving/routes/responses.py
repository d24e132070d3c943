"""POST /v1/responses: the same answers in OpenAI's later form."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from itertools import count
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tunesmith.errors import RequestError, TunesmithError
from tunesmith.inference.engine import Piece
from tunesmith.serving.note import note_of
from tunesmith.serving.problems import describe_failure
from tunesmith.serving.replies.chat import logprobs_of
from tunesmith.serving.replies.events import STREAMED, Events, answered, event
from tunesmith.serving.replies.responses import Items, Plain, ResponseReply
from tunesmith.serving.routes.chat import Talk, begin
from tunesmith.serving.schema.responses import ResponsesRequest, renamed
from tunesmith.serving.service import Service


def add_responses(app: APIRouter, service: Service) -> None:
    """Let an application answer in items."""

    @app.post("/v1/responses", response_model=None, responses=STREAMED)
    async def responses(body: ResponsesRequest, request: Request) -> Response:
        """Answer a text or a conversation; nothing is kept."""
        body.check()
        try:
            talk = await begin(body.chat(), note_of(request.scope), service)
        except RequestError as problem:
            raise renamed(problem) from None
        telling = Telling(talk, ResponseReply(body, talk.note.model))
        if body.stream:
            return Events(_numbered(telling.events()))
        return await answered(telling.whole(), request)


class Telling:
    """One answer while it is told in items."""

    def __init__(self, talk: Talk, reply: ResponseReply) -> None:
        self._talk, self._reply, self._items = talk, reply, Items()
        self._status = "completed"

    async def whole(self) -> dict[str, Any]:
        """Wait for the answer and spell it."""
        async for _ in self._told():
            pass
        self._talk.note.answer = self._items.done
        return self._reply.spell(self._status, self._items, self._talk.note)

    async def events(self) -> AsyncGenerator[Plain, None]:
        """Tell the answer as it is written, and what goes wrong as its end."""
        for status in ("created", "in_progress"):
            spelled = self._reply.spell("in_progress", self._items)
            yield {"type": f"response.{status}", "response": spelled}
        try:
            async for told in self._told():
                yield told
        except Exception as problem:  # noqa: BLE001  the status was sent: only an event can tell
            yield self._failure(problem)
        else:
            spelled = self._reply.spell(self._status, self._items, self._talk.note)
            yield {"type": f"response.{self._status}", "response": spelled}

    async def _told(self) -> AsyncIterator[Plain]:
        async for _, piece in self._talk.job:
            for told in self._read(piece):
                yield told

    def _read(self, piece: Piece) -> Iterator[Plain]:
        talk = self._talk
        (message,) = talk.messages
        deltas = talk.read(0, piece)
        logprobs = logprobs_of(piece.tokens, talk.speech)["content"] if talk.tells_logprobs else []
        for delta in deltas:
            yield from self._items.push(delta, logprobs)
            logprobs = []
        if piece.finish:
            yield from self._items.end()
            if message.finish(piece.finish) == "length":
                self._status = "incomplete"
                self._items.cut()

    def _failure(self, problem: Exception) -> Plain:
        if not isinstance(problem, TunesmithError):
            describe_failure(problem)
            told = "the server failed unexpectedly"
        else:
            told = problem.message
        error = {"code": "server_error", "message": told}
        spelled = self._reply.spell("failed", self._items, self._talk.note, error)
        return {"type": "response.failed", "response": spelled}


async def _numbered(events: AsyncGenerator[Plain, None]) -> AsyncGenerator[bytes, None]:
    """Number the events, and name each as its type."""
    numbers = count()
    async for told in events:
        yield event({**told, "sequence_number": next(numbers)}, told["type"])
