"""Refuse options that would have no effect."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.errors import RunError


def refuse_given(options: Mapping[str, object], why: str) -> None:
    """Refuse the first option that was given.

    Raises:
        RunError: naming it, and why it has no effect.
    """
    for name, value in options.items():
        if value is not None and value is not False and value != []:
            raise RunError(
                f"{name} has no effect here: {why}", hint="leave it away", where="command line"
            )
