"""The HTTP application: which address does what."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, cast

from fastapi import Depends, FastAPI, HTTPException, Query, Request
from fastapi.responses import StreamingResponse
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from starlette.types import Receive, Scope, Send

from tunesmith import __version__
from tunesmith.errors import RequestError
from tunesmith.inference.generate import Stream
from tunesmith.serving.guard import Guard
from tunesmith.serving.problems import add_problem_replies, describe_failure
from tunesmith.serving.replies import DONE, Completion, event, usage
from tunesmith.serving.schema import ChatRequest, GenerateQuery, GenerateRequest
from tunesmith.serving.service import Asked, Service

CLIENT_GONE = 499
"""What web servers note when nobody is left to answer to."""


def build_app(service: Service, guard: Guard) -> FastAPI:
    """Build the application around one model; its docs page needs no other host.

    Its description names the key that the guard asks for, so that the docs page can send it.
    """
    app: FastAPI = FastAPIOffline(
        title="tunesmith",
        version=__version__,
        summary=f"The model {service.name}.",
        dependencies=[Depends(HTTPBearer(auto_error=False))] if guard.key else [],
    )
    add_problem_replies(app)
    app.add_middleware(guard.middleware())
    _add_state(app, service)
    _add_generate(app, service)
    _add_chat(app, service)
    return app


def _add_state(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Say that the server lives."""
        return {"status": "ok"}

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        """List the model."""
        return {"object": "list", "data": [_entry(service)]}

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> dict[str, Any]:
        """Describe the model."""
        _check_name(name, service)
        return _entry(service)


def _entry(service: Service) -> dict[str, Any]:
    return {"id": service.name, "object": "model", "created": 0, "owned_by": "tunesmith"}


def _add_generate(app: FastAPI, service: Service) -> None:
    @app.get("/generate")
    async def generate_from_query(
        query: Annotated[GenerateQuery, Query()], request: Request
    ) -> dict[str, Any]:
        """Answer a question given in the address."""
        return await _generate(query, request, service)

    @app.post("/generate")
    async def generate(body: GenerateRequest, request: Request) -> dict[str, Any]:
        """Answer a prompt or messages with plain text."""
        return await _generate(body, request, service)


async def _generate(
    body: GenerateRequest | GenerateQuery, request: Request, service: Service
) -> dict[str, Any]:
    asked = await service.prepare(body.asked(), body.sampling())
    text, stream = await _unless_gone(_collect(asked, service), request)
    return {"text": text, "finish_reason": stream.finish, "usage": usage(stream)}


def _add_chat(app: FastAPI, service: Service) -> None:
    @app.post("/v1/chat/completions", response_model=None)
    async def chat(body: ChatRequest, request: Request) -> dict[str, Any] | StreamingResponse:
        """Answer a conversation, whole or as a stream of server-sent events."""
        body.check()
        _check_name(body.model, service)
        asked = await service.prepare([m.plain() for m in body.messages], body.sampling())
        if body.stream:
            return Events(_events(body, asked, service), media_type="text/event-stream")
        text, stream = await _unless_gone(_collect(asked, service), request)
        return Completion(service.name).whole(text, stream)


def _check_name(name: str | None, service: Service) -> None:
    if name not in (None, service.name):
        raise UnknownModel(
            f"there is no model {name!r} here",
            hint=f"the one that is served is {service.name!r}",
            where="model",
        )


class UnknownModel(RequestError):
    """A request names a model that is not served."""


async def _collect(asked: Asked, service: Service) -> tuple[str, Stream]:
    async with service.answering(asked) as answering:
        return "".join([piece async for piece in answering]), answering.stream


async def _unless_gone(
    work: Coroutine[None, None, tuple[str, Stream]], request: Request
) -> tuple[str, Stream]:
    """Wait for an answer, and leave it as soon as nobody waits for it any longer."""
    working, watching = asyncio.create_task(work), asyncio.create_task(_wait_for_end(request))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise HTTPException(CLIENT_GONE, "the client is gone")
        return working.result()
    finally:
        working.cancel()
        watching.cancel()


async def _wait_for_end(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class Events(StreamingResponse):
    """A stream that leaves its work at once when the client goes, even if it never read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events, then close where they come from."""
        async with aclosing(cast("AsyncGenerator[bytes, None]", self.body_iterator)):
            await super().__call__(scope, receive, send)


async def _events(body: ChatRequest, asked: Asked, service: Service) -> AsyncGenerator[bytes, None]:
    completion = Completion(service.name)
    try:
        async with service.answering(asked) as answering:
            yield completion.chunk({"role": "assistant", "content": ""})
            async for piece in answering:
                yield completion.chunk({"content": piece})
            yield completion.chunk({}, answering.stream.finish)
            if body.stream_options and body.stream_options.include_usage:
                yield completion.usage_chunk(answering.stream)
        yield DONE
    except Exception as problem:  # noqa: BLE001  the status was sent: only an event can tell
        yield event(describe_failure(problem))
