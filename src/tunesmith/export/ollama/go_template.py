"""Render a template of Go's language as Ollama does."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.errors import ExportError
from tunesmith.export.ollama.go_syntax import Block, Call, Name, Path, Pipe, parse_go

Scope = list[dict[str, Any]]


class Spelled(dict[str, Any]):
    """What is written as JSON where its fields are not asked for."""


def render_go(source: str, data: Mapping[str, Any]) -> str:
    """Render a template.

    Raises:
        ExportError: if it is none, or asks for what is not there.
    """
    written: list[str] = []
    _run(parse_go(source), data, [{"$": data}], written)
    return "".join(written)


def _run(nodes: Sequence[Any], dot: Any, scope: Scope, written: list[str]) -> None:
    for node in nodes:
        if isinstance(node, str):
            written.append(node)
        elif isinstance(node, Pipe):
            value = _set(node, _value(node, dot, scope), scope)
            if not node.sets:
                written.append(_spell(value))
        else:
            _run_block(node, dot, scope, written)


def _run_block(block: Block, dot: Any, scope: Scope, written: list[str]) -> None:
    inner = [*scope, {}]
    value = _value(block.pipe, dot, scope)
    if block.kind == "range":
        _repeat(block, value, (dot, inner), written)
        return
    _set(block.pipe, value, inner)
    if not value:
        _run(block.otherwise, dot, inner, written)
    else:
        _run(block.body, value if block.kind == "with" else dot, inner, written)


def _repeat(block: Block, value: Any, outer: tuple[Any, Scope], written: list[str]) -> None:
    pairs = sorted(value.items()) if isinstance(value, Mapping) else list(enumerate(value or ()))
    for place, each in pairs:
        inner = [*outer[1], {}]
        given = (each,) if len(block.pipe.sets) == 1 else (place, each)
        inner[-1] |= dict(zip(block.pipe.sets, given, strict=False))
        _run(block.body, each, inner, written)
    if not pairs:
        _run(block.otherwise, *outer, written)


def _set(pipe: Pipe, value: Any, scope: Scope) -> Any:
    for name in pipe.sets:
        known = next((level for level in reversed(scope) if name in level), None)
        if pipe.declares:
            scope[-1][name] = value
        elif known is None:
            raise _fault(f"{name} was never declared")
        else:
            known[name] = value
    return value


def _value(pipe: Pipe, dot: Any, scope: Scope) -> Any:
    piped: tuple[Any, ...] = ()
    for call in pipe.calls:
        piped = (_call(call, piped, dot, scope),)
    return piped[0]


def _call(call: Call, piped: tuple[Any, ...], dot: Any, scope: Scope) -> Any:
    first, *rest = call.words
    if not isinstance(first, Name):
        if rest or piped:
            raise _fault(f"{first} takes nothing")
        return _look(first, dot, scope)
    if first.text in ("and", "or"):
        return _choose(first.text, rest, piped, lambda word: _look(word, dot, scope))
    if first.text not in FUNCTIONS:
        raise _fault(f"there is no function {first.text}")
    return FUNCTIONS[first.text](*(_look(word, dot, scope) for word in rest), *piped)


def _choose(
    name: str, words: Sequence[Any], piped: tuple[Any, ...], look: Callable[[Any], Any]
) -> Any:
    """Stop at the first value that decides, as Go does."""
    value = None
    for word in words:
        value = look(word)
        if bool(value) == (name == "or"):
            return value
    return piped[0] if piped else value


def _look(word: Any, dot: Any, scope: Scope) -> Any:
    if isinstance(word, Pipe):
        return _value(word, dot, scope)
    if isinstance(word, Name):
        return _call(Call((word,)), (), dot, scope)
    if not isinstance(word, Path):
        return word
    value = dot if word.start == "." else _start(word.start, dot, scope)
    for name in word.names:
        if not isinstance(value, Mapping) or name not in value:
            raise _fault(f"there is no {name}")
        value = value[name]
    return value


def _start(start: Any, dot: Any, scope: Scope) -> Any:
    if isinstance(start, Pipe):
        return _value(start, dot, scope)
    for level in reversed(scope):
        if start in level:
            return level[start]
    raise _fault(f"{start} was never declared")


def _spell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return spell_json(value) if isinstance(value, Spelled) else str(value)


def spell_json(value: Any) -> str:
    """Write JSON as Go does: without blanks, and with marks of HTML as numbers."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for mark in "<>&\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def _equal(first: Any, *others: Any) -> bool:
    return any(first == other for other in others)


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start:end]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "eq": _equal,
    "ge": lambda a, b: a >= b,
    "gt": lambda a, b: a > b,
    "index": lambda value, place: value[place],
    "json": spell_json,
    "le": lambda a, b: a <= b,
    "len": len,
    "lt": lambda a, b: a < b,
    "ne": lambda a, b: a != b,
    "not": lambda value: not value,
    "slice": _slice,
}


def _fault(message: str) -> ExportError:
    return ExportError(
        f"the template cannot be rendered: {message}", hint="mend it", where="TEMPLATE"
    )
