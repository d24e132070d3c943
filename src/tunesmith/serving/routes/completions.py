"""POST /v1/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tunesmith.serving.jobs import Job
from tunesmith.serving.note import Note, note_of
from tunesmith.serving.opening import let_in
from tunesmith.serving.parting import Parting, parted
from tunesmith.serving.problems import told_in_stream
from tunesmith.serving.replies.chat import usage
from tunesmith.serving.replies.completions import Text, TextCompletion
from tunesmith.serving.replies.events import DONE, STREAMED, Events, answered, event
from tunesmith.serving.schema.completions import CompletionRequest
from tunesmith.serving.service import Service, Speaker, several


def add_completions(app: APIRouter, service: Service) -> None:
    """Let an application continue texts."""

    @app.post("/v1/completions", response_model=None, responses=STREAMED)
    async def completions(body: CompletionRequest, request: Request) -> Response:
        """Continue texts, whole or as a stream of server-sent events."""
        going_on = await begin(body, note_of(request.scope), service)
        if body.stream:
            return Events(told_in_stream(going_on.events(body)))
        return await answered(going_on.whole(), request)


async def begin(body: CompletionRequest, note: Note, service: Service) -> Continuing:
    """Check a request, tokenize it, and let the engine begin.

    Raises:
        RequestError: naming what cannot be done.
    """
    prompts, count = body.prompts(), body.n or 1
    opened = let_in(body, note, service, len(prompts) * count)
    speaker = opened.speaker
    asked = [
        await service.encode(speaker, prompt) if isinstance(prompt, str) else prompt
        for prompt in prompts
    ]
    note.prompt = prompts
    wanted = body.wanted()
    requests = [
        request
        for tokens in asked
        for request in several(service.request(speaker, tokens, opened.sampling), count)
    ]
    if wanted is not None:
        parting = Parting(replace(speaker.manner, thinking=None, tools=None), wanted=wanted)
        requests = await parted(requests, parting, speaker, service)
    before = [_echoed(prompt, speaker) if body.echo else "" for prompt in prompts]
    tells = body.logprobs is not None
    texts = [
        Text(one, speaker.speech, tells_logprobs=tells) for one in before for _ in range(count)
    ]
    service.start(opened.job, requests)
    return Continuing(speaker.name, opened.job, note, texts)


def _echoed(prompt: str | list[int], speaker: Speaker) -> str:
    return prompt if isinstance(prompt, str) else speaker.speech.decode(prompt, keep_special=True)


class Continuing:
    """Texts while they are continued."""

    def __init__(self, model: str, job: Job, note: Note, texts: list[Text]) -> None:
        self._job, self._note, self._texts = job, note, texts
        self._completion = TextCompletion(model)

    async def whole(self) -> dict[str, Any]:
        """Wait for all of them and spell them."""
        async for index, piece in self._job:
            self._texts[index].push(piece)
        choices = [text.whole(index) for index, text in enumerate(self._texts)]
        self._note.answer = [choice["text"] for choice in choices]
        return {**self._completion.head(), "choices": choices, "usage": usage(self._note)}

    async def events(self, body: CompletionRequest) -> AsyncGenerator[bytes, None]:
        """Tell them as they are written."""
        wanted = body.stream_options
        counts = bool(wanted and wanted.continuous_usage_stats)
        head = self._completion.head()
        async for index, piece in self._job:
            chunk = {**head, "choices": [self._texts[index].chunk(index, piece)]}
            yield event({**chunk, "usage": usage(self._note)} if counts else chunk)
        if wanted and wanted.include_usage:
            yield event({**head, "choices": [], "usage": usage(self._note)})
        yield DONE
