"""Every error as JSON with what, where and what to do."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from tunesmith.errors import TunesmithError
from tunesmith.logs import logger
from tunesmith.serving.replies import body_of, error_body

log = logger(__name__)
STATUS = {"UnknownModel": 404, "Busy": 429}


def add_problem_replies(app: FastAPI) -> None:
    """Let every kind of error answer in the same form."""

    @app.exception_handler(TunesmithError)
    async def mendable(_: Request, problem: TunesmithError) -> JSONResponse:
        status = STATUS.get(type(problem).__name__, 400)
        headers = {"Retry-After": "1"} if status == STATUS["Busy"] else None
        return JSONResponse(body_of(problem), status, headers)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, problem: RequestValidationError) -> JSONResponse:
        first = problem.errors()[0]
        return JSONResponse(_describe(first), 422)

    @app.exception_handler(HTTPException)
    async def refused(request: Request, problem: HTTPException) -> JSONResponse:
        hint = "see /docs for what there is"
        body = error_body(str(problem.detail), request.url.path, hint, "invalid_request_error")
        return JSONResponse(body, problem.status_code, problem.headers)

    @app.exception_handler(Exception)
    async def unexpected(_: Request, problem: Exception) -> JSONResponse:
        log.error("a request failed unexpectedly", exc_info=problem)
        body = error_body(
            "the server failed unexpectedly", "", "look at the server's log", "server_error"
        )
        return JSONResponse(body, 500)


def _describe(mistake: Any) -> dict[str, Any]:
    where = ".".join(str(part) for part in mistake["loc"] if part not in ("body", "query"))
    kind = mistake["type"]
    if kind == "extra_forbidden":
        message, hint = f"there is no field {where}", "leave it out; see /docs for what there is"
    elif kind == "json_invalid":
        message = f"the body is not valid JSON: {mistake.get('ctx', {}).get('error', '')}"
        where, hint = "body", "send JSON with the header Content-Type: application/json"
    elif kind == "missing":
        message, hint = f"{where or 'the body'} is missing", "see /docs for what is needed"
    else:
        message, hint = f"{where}: {mistake['msg']}", "see /docs for what is accepted"
    return error_body(message, where, hint, "invalid_request_error")
