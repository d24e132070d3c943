"""Errors: the fields that OpenAI's clients read, and ours."""

from __future__ import annotations

from typing import Any

from tunesmith.errors import TunesmithError

CODES = {
    "UnknownModel": "model_not_found",
    "Busy": "rate_limit_exceeded",
    "Stopping": "server_stopping",
    "NotReady": "server_loading",
}
"""What OpenAI's clients look for, by the names of our errors."""
KINDS = {
    "Busy": "rate_limit_error",
    **dict.fromkeys(("Stopping", "NotReady", "EngineError", "NoOdds"), "server_error"),
}
"""Whose fault it is, where not the request's; in a stream nothing else tells."""


def error_body(
    message: str, where: str, hint: str, *, kind: str = "invalid_request_error", code: str = ""
) -> dict[str, Any]:
    """Spell an error."""
    message, where = (text.encode("utf-8", "replace").decode() for text in (message, where))
    return {
        "error": {
            "message": message,
            "where": where,
            "hint": hint,
            "type": kind,
            "param": where or None,
            "code": code or None,
        }
    }


def body_of(problem: TunesmithError) -> dict[str, Any]:
    """Spell an error of ours."""
    name = type(problem).__name__
    return error_body(
        problem.message,
        problem.where,
        problem.hint,
        kind=KINDS.get(name, "invalid_request_error"),
        code=CODES.get(name, ""),
    )
