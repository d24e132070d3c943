"""Say what went wrong: what, where, what to do."""

from __future__ import annotations

import errno
import tempfile
import traceback
from pathlib import Path
from typing import Any

import typer

from tunesmith.errors import TunesmithError


def show_error(problem: TunesmithError, *, debug: bool) -> int:
    """Print an error a person can mend, in three lines."""
    if debug:
        traceback.print_exception(problem)
    show(problem.message, problem.where, problem.hint)
    return 2


def show_usage(problem: Any) -> int:
    """Print what the parser of the command line has to say, in the same three lines."""
    context = getattr(problem, "ctx", None)
    command = context.command_path if context is not None else "tunesmith"
    show(problem.format_message().rstrip("."), "command line", f"see `{command} --help`")
    return 2


def show_crash(problem: Exception, *, debug: bool) -> int:
    """Admit a bug of ours and keep its traceback; a full disk is none."""
    if debug:
        traceback.print_exception(problem)
    if isinstance(problem, OSError) and problem.errno == errno.ENOSPC:
        show("the disk is full", str(problem.filename or "output"), "make room, and try again")
        return 2
    where, hint = _keep(problem), "report it with that file; `tunesmith --debug ...` shows it here"
    if not where:
        hint = "there is no room to keep where it arose; `tunesmith --debug ...` shows it here"
    show(f"unexpected: {problem!r}; this is a bug of tunesmith", where, hint)
    return 1


def _keep(problem: Exception) -> str:
    """Write a traceback down and say where; nowhere if the disk is full."""
    try:
        kept = Path(tempfile.mkdtemp(prefix="tunesmith-")) / "crash.txt"
        kept.write_text("".join(traceback.format_exception(problem)), encoding="utf-8")
    except OSError:
        return ""
    return str(kept)


def show(message: str, where: str, hint: str) -> None:
    """Print the three lines; where nothing is to be named, two."""
    typer.echo(f"error: {message}", err=True)
    if where:
        typer.echo(f"where: {where}", err=True)
    typer.echo(f"hint:  {hint}", err=True)
