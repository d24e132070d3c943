"""Every error as JSON with what, where and what to do."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, cast

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunesmith.errors import TunesmithError
from tunesmith.logs import logger
from tunesmith.serving.replies.errors import body_of, error_body
from tunesmith.serving.replies.events import event

log = logger(__name__)
STATUS = {
    "UnknownModel": 404,
    "Busy": 429,
    "Stopping": 503,
    "NotReady": 503,
    "EngineError": 502,
    "NoOdds": 500,
}
RETRY = (429, 503)
CHOICE = re.compile(
    r"str|int|(list|literal)\[.*|(function|constrained|tagged)-.*|[A-Z]\w*(Part|Item|Tool|Function)"
)
"""How pydantic names the kinds of value that a field may have."""


def add_problem_replies(app: FastAPI) -> None:
    """Let every kind of error answer in the same form."""

    @app.exception_handler(TunesmithError)
    async def mendable(_: Request, problem: TunesmithError) -> JSONResponse:
        status = STATUS.get(type(problem).__name__, 400)
        headers = {"Retry-After": "1"} if status in RETRY else None
        return JSONResponse(body_of(problem), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        return JSONResponse(_describe(*_most_telling(problem.errors())), 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, problem: HTTPException) -> JSONResponse:
        hint, detail = "see /docs for what there is", cast("Any", problem.detail)
        body = error_body(str(detail), request.url.path, hint)
        if isinstance(detail, dict):  # the guard's, already in our form
            body = detail
        return JSONResponse(body, problem.status_code, problem.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, problem: Exception) -> JSONResponse:
        return JSONResponse(describe_failure(problem), 500)


async def told_in_stream(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """Pass events on, and tell what goes wrong as one: the status was sent already."""
    try:
        async with aclosing(events):
            async for content in events:
                yield content
    except TunesmithError as problem:
        yield event(body_of(problem))
    except Exception as problem:  # noqa: BLE001  whatever it is, the client waits for an end
        yield event(describe_failure(problem))


def describe_failure(problem: Exception) -> dict[str, Any]:
    """Admit a fault of ours without telling its details to others, and keep them in the log."""
    log.error("a request failed unexpectedly", exc_info=problem)
    return error_body(
        "the server failed unexpectedly", "", "look at the server's log", kind="server_error"
    )


def _most_telling(mistakes: Sequence[Any]) -> tuple[Any, str]:
    """Take the first mistake, and of a field with several kinds of value the innermost one.

    Of those equally deep one of a kind that the value has says more than that it is not another.
    """
    found = [(mistake, _where(mistake)) for mistake in mistakes]
    first = found[0][1]
    inside = [pair for pair in found if f"{pair[1]}.".startswith(f"{first}.")]
    return max(inside, key=lambda pair: (pair[1].count("."), not pair[0]["type"].endswith("_type")))


def _where(mistake: Any) -> str:
    parts = [str(part) for part in mistake["loc"] if part not in ("body", "query")]
    return ".".join(part for part in parts if not CHOICE.fullmatch(part)) or "body"


def _describe(mistake: Any, where: str) -> dict[str, Any]:
    kind = mistake["type"]
    as_json = "send JSON with the header Content-Type: application/json"
    if kind == "extra_forbidden":
        message, hint = f"there is no field {where}", "leave it out; see /docs for what there is"
    elif kind == "json_invalid":
        message = f"the body is not valid JSON: {mistake.get('ctx', {}).get('error', '')}"
        where, hint = "body", as_json
    elif kind == "model_attributes_type" and where == "body":
        message, hint = "the body is not a JSON object", as_json
    elif kind == "missing":
        message, hint = f"{where} is missing", "see /docs for what is needed"
    else:
        message, hint = f"{where}: {mistake['msg']}", "see /docs for what is accepted"
    return error_body(message, where, hint)
