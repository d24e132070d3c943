"""POST /v1/chat/completions."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tunesmith.inference.engine import Piece, Speech, Token
from tunesmith.serving.jobs import Job
from tunesmith.serving.message import Delta, Message
from tunesmith.serving.note import Note, note_of
from tunesmith.serving.opening import let_in
from tunesmith.serving.parting import find_parting, parted
from tunesmith.serving.problems import told_in_stream
from tunesmith.serving.replies.chat import Completion, choice, logprobs_of, usage
from tunesmith.serving.replies.events import DONE, STREAMED, Events, answered, event
from tunesmith.serving.schema.chat import ChatRequest
from tunesmith.serving.schema.messages import plain_messages
from tunesmith.serving.service import Service, Speaker, several


def add_chat(app: APIRouter, service: Service) -> None:
    """Let an application answer conversations."""

    @app.post("/v1/chat/completions", response_model=None, responses=STREAMED)
    async def chat(body: ChatRequest, request: Request) -> Response:
        """Answer a conversation, whole or as a stream of server-sent events."""
        talk = await begin(body, note_of(request.scope), service)
        if body.stream:
            return Events(told_in_stream(talk.events(body)))
        return await answered(talk.whole(), request)


async def begin(body: ChatRequest, note: Note, service: Service) -> Talk:
    """Check a request, tokenize it, and let the engine begin.

    Raises:
        RequestError: naming what cannot be done.
    """
    messages, tools, count = plain_messages(body.messages), body.offered(), body.n or 1
    opened = let_in(body, note, service, count)
    speaker = opened.speaker
    options = body.template_options(speaker.speech.options)
    prompt = await service.render(speaker, messages, tools, options)
    note.prompt = messages
    wanted = body.wanted()
    parting = await service.tokenize(
        lambda: find_parting(speaker, prompt, body, wanted), 0, "messages"
    )
    requests = several(service.request(speaker, prompt, opened.sampling), count)
    service.start(opened.job, await parted(requests, parting, speaker, service))
    note.thought = None if parting.manner.thinking is None else 0
    makes = [parting.message() for _ in range(count)]
    return Talk(speaker, opened.job, note, makes, tells_logprobs=bool(body.logprobs))


class Talk:
    """The answers to a conversation while they are written.

    Attributes:
        job: tells their pieces.
        messages: what is put together of the pieces, one for each answer.
    """

    def __init__(
        self,
        speaker: Speaker,
        job: Job,
        note: Note,
        messages: list[Message],
        *,
        tells_logprobs: bool,
    ) -> None:
        self.speech: Speech = speaker.speech
        self.job, self.note, self.messages = job, note, messages
        self.tells_logprobs = tells_logprobs
        self._completion = Completion(speaker.name)

    async def whole(self) -> dict[str, Any]:
        """Wait for all answers and spell them."""
        tokens: list[list[Token]] = [[] for _ in self.messages]
        finishes = ["stop"] * len(self.messages)
        async for index, piece in self.job:
            self.read(index, piece)
            tokens[index] += piece.tokens
            if piece.finish:
                finishes[index] = self.messages[index].finish(piece.finish)
        self.note.answer = [message.whole() for message in self.messages]
        choices = [
            choice(index, message.whole(), self._logprobs(tokens[index]), finishes[index])
            for index, message in enumerate(self.messages)
        ]
        return self._completion.whole(choices, self.note)

    def read(self, index: int, piece: Piece) -> list[Delta]:
        """Add a piece to one of the messages; return what can be told of it by now."""
        message = self.messages[index]
        deltas = message.push(piece.text, piece.tokens)
        if piece.finish:
            deltas += message.end()
        elif message.is_full:
            self.job.end(index)
        if self.note.thought is not None:
            self.note.thought = sum(each.thought_tokens for each in self.messages)
        return deltas

    async def events(self, body: ChatRequest) -> AsyncGenerator[bytes, None]:
        """Tell the answers as they are written."""
        wanted = body.stream_options
        counts = bool(wanted and wanted.continuous_usage_stats)
        for index in range(len(self.messages)):
            first = {"role": "assistant", "content": ""}
            yield event(self._completion.chunk(index, first))
        async for index, piece in self.job:
            for chunk in self._chunks(index, piece):
                yield event({**chunk, "usage": usage(self.note)} if counts else chunk)
        if wanted and wanted.include_usage:
            yield self._completion.usage_chunk(self.note)
        yield DONE

    def _chunks(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """Spell what an answer gains by a piece; its tokens go with the first of it."""
        message, logprobs = self.messages[index], self._logprobs(piece.tokens)
        deltas = self.read(index, piece)
        if logprobs and logprobs["content"] and not deltas:
            deltas = [{"content": ""}]
        chunks = []
        for delta in deltas:
            chunks.append(self._completion.chunk(index, delta, logprobs))
            logprobs = None
        if piece.finish:
            finish = message.finish(piece.finish)
            chunks.append(self._completion.chunk(index, {}, None, finish))
        return chunks

    def _logprobs(self, tokens: Any) -> dict[str, Any] | None:
        return logprobs_of(tokens, self.speech) if self.tells_logprobs else None
