"""Read the part of Go's template language that chat templates use."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.errors import ExportError

ACTION = re.compile(r"\{\{(-\s)?(.*?)(\s-)?\}\}", re.DOTALL)
TOKEN = re.compile(
    r'\s*("(?:\\.|[^"\\])*"|`[^`]*`|:=|[|(),=]|\$?[A-Za-z_]\w*|\$|\.[A-Za-z_]\w*|\.|-?\d+)',
    re.ASCII,
)


@dataclass(frozen=True)
class Call:
    """A function or a value, and what it is given."""

    words: tuple[Any, ...]


@dataclass(frozen=True)
class Path:
    """A value reached by names: from the dot, a variable, or what is in parentheses."""

    start: Any
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Name:
    """The name of a function."""

    text: str


@dataclass(frozen=True)
class Pipe:
    """Calls, each of which is given what the one before it returns.

    Attributes:
        sets: variables that take the result.
        declares: whether they are new ones.
    """

    calls: tuple[Call, ...]
    sets: tuple[str, ...] = ()
    declares: bool = False


@dataclass(frozen=True)
class Block:
    """`if`, `range` or `with`, and what stands in it."""

    kind: str
    pipe: Pipe
    body: Sequence[Any]
    otherwise: Sequence[Any] = ()


@dataclass
class _Words:
    """The words of an action, taken one by one."""

    words: list[str]
    at: int = 0
    source: str = field(default="")

    def peek(self) -> str:
        return self.words[self.at] if self.at < len(self.words) else ""

    def take(self) -> str:
        word = self.peek()
        self.at += 1
        return word


def parse_go(source: str) -> list[Any]:
    """Read a template.

    Returns:
        Texts, pipes and blocks.

    Raises:
        ExportError: if it is none, or uses more of the language than is read here.
    """
    pieces = list(_pieces(source))
    nodes, at, end = _parse_list(pieces, 0)
    if end:
        raise _fault(f"{{{{ {end} }}}} closes nothing")
    assert at == len(pieces)
    return nodes


def _pieces(source: str) -> Iterator[tuple[str, str]]:
    """Cut a template into texts and actions; marks trim the blanks beside them."""
    done, trim = 0, False
    for action in ACTION.finditer(source):
        text = source[done : action.start()]
        text = text.lstrip() if trim else text
        text = text.rstrip() if action[1] else text
        if text:
            yield "text", text
        if not action[2].strip().startswith("/*"):
            yield "action", action[2].strip()
        done, trim = action.end(), bool(action[3])
    rest = source[done:].lstrip() if trim else source[done:]
    if "{{" in rest:
        raise _fault("an action is not closed")
    if rest:
        yield "text", rest


def _parse_list(pieces: list[tuple[str, str]], at: int) -> tuple[list[Any], int, str]:
    """Read until what closes a list; return it too."""
    nodes: list[Any] = []
    while at < len(pieces):
        kind, content = pieces[at]
        at += 1
        word = content.split(maxsplit=1)[0] if kind == "action" and content else ""
        if kind == "text":
            nodes.append(content)
        elif word in ("if", "range", "with"):
            node, at = _parse_block(word, content.removeprefix(word), pieces, at)
            nodes.append(node)
        elif word in ("end", "else"):
            return nodes, at, content
        elif word in ("define", "template", "block", "break", "continue"):
            raise _fault(f"{word} is not read here")
        else:
            nodes.append(_parse_pipe(content))
    return nodes, at, ""


def _parse_block(kind: str, head: str, pieces: list[tuple[str, str]], at: int) -> tuple[Block, int]:
    body, at, end = _parse_list(pieces, at)
    otherwise: list[Any] = []
    if end.startswith("else if"):
        inner, at = _parse_block("if", end.removeprefix("else if"), pieces, at)
        return Block(kind, _parse_pipe(head), body, [inner]), at
    if end == "else":
        otherwise, at, end = _parse_list(pieces, at)
    if end != "end":
        raise _fault(f"{kind} is not closed by end")
    return Block(kind, _parse_pipe(head), body, otherwise), at


def _parse_pipe(text: str) -> Pipe:
    words, at = [], 0
    while text[at:].strip():
        found = TOKEN.match(text, at)
        if not found:
            raise _fault(f"{text[at:].strip()!r} cannot be read")
        words.append(found[1])
        spaced = text[at : found.start(1)] != "" or not words[:-1]
        if found[1].startswith(".") and len(found[1]) > 1 and not spaced:
            words[-1] = "+" + found[1]  # a name that belongs to what stands before it
        at = found.end()
    return _read_pipe(_Words(words, source=text), closed=False)


def _read_pipe(words: _Words, *, closed: bool) -> Pipe:
    sets: list[str] = []
    start = words.at
    while words.peek().startswith("$"):
        sets.append(words.take())
        if words.peek() != ",":
            break
        words.take()
    mark = words.take()
    if not sets or mark not in (":=", "="):
        sets, words.at = [], start
    calls = [_read_call(words)]
    while words.peek() == "|":
        words.take()
        calls.append(_read_call(words))
    if (words.take() == ")") != closed or (not closed and words.at <= len(words.words)):
        raise _fault(f"{words.source.strip()!r} cannot be read")
    return Pipe(tuple(calls), tuple(sets), mark == ":=" and bool(sets))


def _read_call(words: _Words) -> Call:
    found: list[Any] = []
    while words.peek() not in ("", "|", ")"):
        found.append(_read_value(words))
    if not found:
        raise _fault(f"{words.source.strip()!r} lacks a value")
    return Call(tuple(found))


def _read_value(words: _Words) -> Any:
    word = words.take()
    start: Any = word
    if word == "(":
        start = _read_pipe(words, closed=True)
    elif word[0] in '"`':
        return _unquote(word)
    elif word.lstrip("-").isdigit():
        return int(word)
    elif word in ("true", "false", "nil"):
        return {"true": True, "false": False, "nil": None}[word]
    elif word.startswith(".") and len(word) > 1:
        start = Path(".", (word[1:],))
    elif word[0] not in "$.":
        return Name(word)
    names = list(start.names) if isinstance(start, Path) else []
    start = start.start if isinstance(start, Path) else start
    while words.peek().startswith("+."):
        names.append(words.take()[2:])
    return Path(start, tuple(names))


def _unquote(word: str) -> str:
    if word[0] == "`":
        return word[1:-1]
    plain = {"n": "\n", "t": "\t", "r": "\r"}
    return re.sub(r"\\(.)", lambda found: plain.get(found[1], found[1]), word[1:-1])


def _fault(message: str) -> ExportError:
    return ExportError(f"this is no template: {message}", hint="mend it", where="TEMPLATE")
