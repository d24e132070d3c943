"""The screen of a talk: read a line, show the answer as it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import typer

from tunesmith.errors import TunesmithError
from tunesmith.paths import expand

if TYPE_CHECKING:
    from tunesmith.inference.session import ChatSession

HELP = (
    "/clear forgets, /save FILE keeps the talk, /system TEXT sets the system prompt, /image FILE, "
    "/video FILE or /audio FILE shows it with the next question, /quit ends"
)


def talk(sessions: Sequence[ChatSession]) -> None:
    """Talk until the input ends or `/quit`."""
    names = " and ".join(session.model.name for session in sessions)
    typer.echo(f"talking to {names}\n{HELP}")
    while (line := _read()) is not None and line.strip() not in ("/quit", "/exit"):
        try:
            if line.startswith("/"):
                _command(line, sessions)
            elif line.strip():
                for session in sessions:
                    _answer(session, line, named=len(sessions) > 1)
        except TunesmithError as problem:
            typer.echo(f"{problem.message} ({problem.hint})", err=True)


def _read() -> str | None:
    while True:
        try:
            line = input("> ")
            line.encode()
        except EOFError:
            typer.echo()
            return None
        except UnicodeError:
            typer.echo("the line is not UTF-8 (set the terminal to UTF-8, type it again)", err=True)
        else:
            return line


def _answer(session: ChatSession, question: str, *, named: bool) -> None:
    if named:
        typer.echo(f"{session.model.name}:")
    try:
        for piece in session.ask(question):
            typer.echo(piece, nl=False)
    except KeyboardInterrupt:
        typer.echo(" (stopped)", nl=False)
    typer.echo()


def _command(line: str, sessions: Sequence[ChatSession]) -> None:
    name, _, rest = line[1:].partition(" ")
    command = COMMANDS.get(name)
    typer.echo(HELP if command is None else command(sessions, rest.strip()) or HELP)


def _clear(sessions: Sequence[ChatSession], rest: str) -> str:
    for session in sessions:
        session.clear()
    return "forgotten"


def _set_system(sessions: Sequence[ChatSession], rest: str) -> str:
    for session in sessions:
        session.system = rest
    return "system prompt set" if rest else "no system prompt"


def _save(sessions: Sequence[ChatSession], rest: str) -> str:
    if not rest:
        return ""
    if not sessions[0].messages:
        return "nothing was said yet"
    path = expand(rest)
    for session in sessions:
        session.save(path)
    return f"added to {path}"


def _show(kind: str, sessions: Sequence[ChatSession], rest: str) -> str:
    if not rest:
        return ""
    for session in sessions:
        session.show(kind, expand(rest))
    return "shown with the next question"


COMMANDS: dict[str, Callable[[Sequence[ChatSession], str], str]] = {
    "clear": _clear,
    "system": _set_system,
    "save": _save,
    "image": partial(_show, "image"),
    "video": partial(_show, "video"),
    "audio": partial(_show, "audio"),
}
"""By name, what does it and says what it did; nothing if it was not understood."""
