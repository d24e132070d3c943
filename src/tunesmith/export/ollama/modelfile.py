"""Modelfiles: write one, and read one as strictly as Ollama does, or more."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tunesmith.errors import ExportError

COMMANDS = [
    "FROM",
    "LICENSE",
    "TEMPLATE",
    "SYSTEM",
    "ADAPTER",
    "DRAFT",
    "RENDERER",
    "PARSER",
    "PARAMETER",
    "MESSAGE",
    "REQUIRES",
]
ROLES = ("system", "user", "assistant")
WHOLE = [
    "num_ctx",
    "num_batch",
    "num_gpu",
    "main_gpu",
    "num_thread",
    "num_keep",
    "seed",
    "num_predict",
    "top_k",
    "repeat_last_n",
]
REAL = [
    "top_p",
    "min_p",
    "typical_p",
    "temperature",
    "repeat_penalty",
    "presence_penalty",
    "frequency_penalty",
]
PARAMETERS: dict[str, type] = {
    **dict.fromkeys(WHOLE, int),
    **dict.fromkeys(REAL, float),
    "use_mmap": bool,
    "stop": str,
}
SEVERAL = ("ADAPTER", "LICENSE", "MESSAGE", "PARAMETER")
"""Commands that may stand there more than once."""

Value = int | float | bool | str


@dataclass(frozen=True)
class Command:
    """A line of a Modelfile.

    Attributes:
        name: in capitals.
        key: of PARAMETER its name, of MESSAGE the role; else empty.
    """

    name: str
    value: Value
    key: str = ""


def write_modelfile(commands: Sequence[Command]) -> str:
    """Write commands.

    Raises:
        ExportError: if a value cannot stand in such a file.
    """
    return "".join(f"{_head(command)} {_quote(command)}\n" for command in commands)


def _head(command: Command) -> str:
    return f"{command.name} {command.key}".strip()


def _quote(command: Command) -> str:
    value = command.value
    if not isinstance(value, str):
        return str(value).lower()
    plain = re.fullmatch(r"[\w./:-]+", value)
    if plain and command.name != "PARAMETER":
        return value
    if '"""' in value or value.startswith('"') or value.endswith('"'):
        raise ExportError(
            f"a Modelfile cannot hold this text: {value[:40]!r}",
            hint="use --format gguf; no quotation marks may stand at its ends, nor three in a row",
            where=command.name,
        )
    return f'"""{value}"""' if "\n" in value or '"' in value else f'"{value}"'


def read_modelfile(text: str) -> list[Command]:
    """Read a Modelfile.

    Raises:
        ExportError: naming the line, if Ollama would refuse it or take it for something else.
    """
    commands: list[Command] = []
    for number, name, rest in _lines(text):
        command = _read(name.upper(), rest, number)
        if command.name not in SEVERAL and any(one.name == command.name for one in commands):
            raise _fault(f"{command.name} stands there twice", number)
        commands.append(command)
    if not any(command.name == "FROM" for command in commands):
        raise _fault("there is no FROM", 1)
    return commands


def _lines(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield commands with the lines they begin in; a quoted value may have several lines."""
    lines = text.splitlines(keepends=True)
    at = 0
    while at < len(lines):
        start, line = at, lines[at]
        at += 1
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.strip("\n").partition(" ")
        opening = _opening(rest, name)
        while opening and not _is_closed(rest, opening):
            if at == len(lines):
                raise _fault("a quoted text is not closed", start + 1)
            rest += "\n" + lines[at].strip("\n")
            at += 1
        yield start + 1, name, rest


def _opening(rest: str, name: str) -> str:
    """Return the marks with which the value begins, if any."""
    value = rest.lstrip()
    if name.upper() in ("PARAMETER", "MESSAGE"):
        value = value.partition(" ")[2].lstrip()
    return '"""' if value.startswith('"""') else '"' if value.startswith('"') else ""


def _is_closed(rest: str, opening: str) -> bool:
    value = rest.rstrip(" ")
    first = value.index(opening)
    return len(value) >= first + 2 * len(opening) and value.endswith(opening)


def _read(name: str, rest: str, number: int) -> Command:
    if name not in COMMANDS:
        raise _fault(f"there is no command {name}", number)
    key = ""
    if name in ("PARAMETER", "MESSAGE"):
        key, _, rest = rest.strip(" ").partition(" ")
    value = _unquote(rest.strip(" "))
    if not value and name not in ("TEMPLATE", "SYSTEM"):
        raise _fault(f"{name} lacks a value", number)
    if name == "MESSAGE" and key not in ROLES:
        raise _fault(f"a message is said by one of {', '.join(ROLES)}, and not by {key}", number)
    return Command(name, _typed(key, value, number) if name == "PARAMETER" else value, key)


def _unquote(value: str) -> str:
    for mark in ('"""', '"'):
        if value.startswith(mark) and value.endswith(mark) and len(value) >= 2 * len(mark):
            return value[len(mark) : -len(mark)]
    return value


def _typed(key: str, value: str, number: int) -> Value:
    if key not in PARAMETERS:
        raise _fault(f"there is no parameter {key}", number)
    wanted = PARAMETERS[key]
    try:
        if wanted is bool:
            return {"true": True, "false": False}[value]
        found: Value = wanted(value)
    except (KeyError, ValueError):
        raise _fault(
            f"{key} is of the kind {wanted.__name__}, and {value!r} is none", number
        ) from None
    return found


def _fault(message: str, line: int) -> ExportError:
    return ExportError(message, hint="mend the Modelfile", where=f"Modelfile:{line}")
