"""GET and POST /generate: a plain answer."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from tunesmith.serving.jobs import Job
from tunesmith.serving.note import Note, note_of
from tunesmith.serving.opening import let_in
from tunesmith.serving.replies.chat import usage
from tunesmith.serving.replies.events import answered
from tunesmith.serving.schema.generate import GenerateQuery, GenerateRequest
from tunesmith.serving.schema.messages import plain_messages
from tunesmith.serving.service import Service, Speaker


def add_generate(app: APIRouter, service: Service) -> None:
    """Let an application answer with plain text."""

    @app.get("/generate", response_model=None)
    async def generate_from_query(
        query: Annotated[GenerateQuery, Query()], request: Request
    ) -> Response:
        """Answer a question given in the address."""
        return await _generate(query, request, service)

    @app.post("/generate", response_model=None)
    async def generate(body: GenerateRequest, request: Request) -> Response:
        """Answer a prompt or messages with plain text."""
        return await _generate(body, request, service)


async def _generate(
    body: GenerateRequest | GenerateQuery, request: Request, service: Service
) -> Response:
    asked, note = body.asked(), note_of(request.scope)
    opened = let_in(body, note, service)
    speaker, job = opened.speaker, opened.job
    if not isinstance(asked, str):
        prompt = await service.render(speaker, plain_messages(asked))
    else:
        prompt = await _encode(asked, speaker, service)
    note.prompt = body.model_dump(include={"prompt", "messages"})
    service.start(job, [service.request(speaker, prompt, opened.sampling)])
    return await answered(_collect(job, note), request)


async def _encode(asked: str, speaker: Speaker, service: Service) -> list[int]:
    """Tokenize a question, or a text to continue where the model only does that."""
    if not speaker.speech.can_chat:
        return await service.encode(speaker, asked)
    return await service.render(speaker, [{"role": "user", "content": asked}])


async def _collect(job: Job, note: Note) -> dict[str, Any]:
    texts, finish = [], "stop"
    async for _, piece in job:
        texts.append(piece.text)
        finish = piece.finish or finish
    return {"text": "".join(texts), "finish_reason": finish, "usage": usage(note)}
