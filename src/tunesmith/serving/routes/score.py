"""POST /score: what a reward model thinks of answers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from tunesmith.inference.score import score, score_text
from tunesmith.serving.judge import Judge
from tunesmith.serving.note import note_of
from tunesmith.serving.replies.events import answered
from tunesmith.serving.schema.messages import ChatMessage, plain_messages
from tunesmith.serving.schema.score import ScoreRequest

SECONDS_TO_SCORE = 300


def add_score(app: APIRouter, judge: Judge) -> None:
    """Let an application score answers."""

    @app.post("/score", response_model=None)
    async def scores(body: ScoreRequest, request: Request) -> Response:
        """Score a conversation, several, or texts that are written as the model reads them."""
        return await answered(_score(body, request, judge), request)


async def _score(body: ScoreRequest, request: Request, judge: Judge) -> dict[str, Any]:
    if body.model not in (None, ANY):
        judge.full_name(body.model)
    judge.enter(note_of(request.scope), judge.name)
    texts, talks = _read(body)
    found = await judge.score(
        lambda: [
            *(score_text(judge.model, text) for text in texts),
            *(score(judge.model, talk) for talk in talks),
        ],
        SECONDS_TO_SCORE,
    )
    return {"object": "list", "model": judge.name, "scores": found}


ANY = "model"
"""What LLaMA-Factory's trainer calls every reward model."""


def _read(body: ScoreRequest) -> tuple[list[str], list[list[dict[str, Any]]]]:
    """Part texts from conversations; there are only ones or only others."""
    texts = [one for one in body.messages if isinstance(one, str)]
    talk = [one for one in body.messages if isinstance(one, ChatMessage)]
    talks = [one for one in body.messages if isinstance(one, list)]
    return texts, [plain_messages(one) for one in ([talk] if talk else talks)]
