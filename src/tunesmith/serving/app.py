"""The HTTP application: which routes there are, and what stands in front of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.security import HTTPBearer
from fastapi_offline import FastAPIOffline
from pydantic import BaseModel
from starlette.types import ASGIApp

from tunesmith import __version__
from tunesmith.serving.front import in_front
from tunesmith.serving.guard import Guard
from tunesmith.serving.judge import Judge
from tunesmith.serving.loading import Loading
from tunesmith.serving.metrics import Metrics
from tunesmith.serving.note import Note
from tunesmith.serving.problems import add_problem_replies
from tunesmith.serving.request_log import RequestLog
from tunesmith.serving.routes.adapters import add_adapters
from tunesmith.serving.routes.chat import add_chat
from tunesmith.serving.routes.completions import add_completions
from tunesmith.serving.routes.embeddings import add_embeddings
from tunesmith.serving.routes.generate import add_generate
from tunesmith.serving.routes.responses import add_responses
from tunesmith.serving.routes.score import add_score
from tunesmith.serving.routes.state import add_alive, add_metrics, add_state
from tunesmith.serving.routes.tokens import add_tokens
from tunesmith.serving.service import Service

ROUTES = (
    add_generate,
    add_chat,
    add_completions,
    add_responses,
    add_embeddings,
    add_tokens,
    add_adapters,
)


class Problem(BaseModel):
    """What went wrong, where, and what to do."""

    message: str
    where: str
    hint: str
    type: str
    param: str | None
    code: str | None


class Problems(BaseModel):
    """The body of every error."""

    error: Problem


def build_app(answers: Service | Judge, guard: Guard, log: RequestLog | None = None) -> ASGIApp:
    """Build the application around an engine or a reward model; its docs page needs no other host.

    Its description names the key that the guard asks for, so that the docs page can send it.
    """
    failures: dict[int | str, dict[str, Any]] = {
        status: {"model": Problems} for status in ("4XX", "422", "5XX")
    }
    app: FastAPI = FastAPIOffline(
        title="tunesmith",
        version=__version__,
        summary=f"The model {answers.name}.",
        responses=failures,
    )
    add_problem_replies(app)
    add_alive(app.router, answers)
    asked = [Depends(HTTPBearer(auto_error=False))] if guard.access.keys else []
    behind, metrics = APIRouter(dependencies=asked), Metrics(answers)
    add_state(behind, answers)
    add_metrics(behind, metrics)
    if isinstance(answers, Judge):
        add_score(behind, answers)
    else:
        for add in ROUTES:
            add(behind, answers)
    app.include_router(behind)

    def ended(note: Note, route: str, status: int) -> None:
        metrics.count(note, route, status)
        if log is not None:
            log.write(note, route, status)

    return in_front(guard.around(app, answers), ended)


def build_waiting_app(guard: Guard, log: RequestLog) -> ASGIApp:
    """Build what answers while the model loads."""
    app, nobody = FastAPI(openapi_url=None), Loading()
    add_problem_replies(app)
    add_alive(app.router, nobody)
    return in_front(guard.around(app, nobody), log.write)
