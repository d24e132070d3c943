"""Forms in llama.cpp's own words, for vocabularies that its llguidance reads otherwise.

What is written may be a part of what a schema allows: one line, the properties in their order, none
that it does not name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from tunesmith.errors import RequestError
from tunesmith.inference.structured import Outline, Wanted

MOST = 1000
"""Letters of a text and parts of a list; llama.cpp counts to 2,000."""
JSON = {
    "null": '"null"',
    "boolean": '"true" | "false"',
    "integer": '"-"? whole',
    "number": '"-"? whole ("." [0-9]{1,15})? ([eE] [-+]? [0-9]{1,2})?',
    "string": r'"\"" char* "\""',
    "array": '"[" (value (", " value)*)? "]"',
    "object": '"{" (pair (", " pair)*)? "}"',
    "value": "object | array | string | number | boolean | null",
    "pair": 'string ": " value',
    "whole": '"0" | [1-9] [0-9]{0,15}',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" ["\\bfnrt]',
}
SILENT = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "$defs"}
SILENT |= {"definitions", "discriminator", "additionalProperties", "type"}
"""Words of a schema that ask for nothing more of what we write."""
KINDS = ("object", "array", "string", "number", "integer", "boolean", "null")


def fields_in_gbnf(outline: Outline) -> dict[str, Any]:
    """Return what llama.cpp is asked so that its own grammars hold an answer to a form.

    Raises:
        RequestError: if they have no words for it, naming the field.
    """
    wanted = outline.wanted
    if wanted is None or outline.calling is not None or outline.thinking is not None:
        where = "tools" if outline.calling is not None else "response_format"
        raise _refuse("calls" if outline.calling is not None else "thoughts", where)
    wanted.check()
    if wanted.kind == "json":
        return {"grammar": _Schema(wanted).text()}
    if wanted.kind == "choice":
        return {"grammar": f"root ::= {_either(map(_quote, wanted.value))}\n"}
    if wanted.kind == "grammar" and "::=" in wanted.value:
        return {"grammar": wanted.value}
    raise _refuse("Lark" if wanted.kind == "grammar" else "patterns", wanted.where)


class _Schema:
    def __init__(self, wanted: Wanted) -> None:
        self._whole, self._where = wanted.value, wanted.where
        self._rules: dict[str, str] = {}
        self._named: dict[str, str] = {}

    def text(self) -> str:
        root = self._write(self._whole)
        rules = {"root": root, **self._rules, **JSON}
        return "".join(f"{name} ::= {body}\n" for name, body in rules.items())

    def _write(self, schema: Any) -> str:
        """Add what a schema needs; return what stands for it."""
        if not isinstance(schema, Mapping):
            return "value" if schema else self._no("false")
        self._check(schema)
        if "$ref" in schema:
            return self._refer(str(schema["$ref"]))
        if "enum" in schema or "const" in schema:
            texts = schema.get("enum", [schema.get("const")])
            return self._either(_quote(json.dumps(each, ensure_ascii=False)) for each in texts)
        for word in ("anyOf", "oneOf"):
            if word in schema:
                return self._either(map(self._write, schema[word]))
        kinds = schema.get("type", self._told(schema) or KINDS)
        listed = [kinds] if isinstance(kinds, str) else kinds
        return self._either(self._write_kind(kind, schema) for kind in listed)

    def _either(self, parts: Iterable[str]) -> str:
        return _either(parts) or self._no("nothing to choose")

    def _told(self, schema: Mapping[str, Any]) -> list[str]:
        """Tell of what kind a value is by what is said of it."""
        told = {"object": {"properties", "required"}, "array": {"items", "minItems", "maxItems"}}
        return [kind for kind, words in told.items() if words & schema.keys()]

    def _check(self, schema: Mapping[str, Any]) -> None:
        """Refuse words that ask for what is not written here.

        Raises:
            RequestError: naming one.
        """
        known = SILENT | {"properties", "required", "items", "minItems", "maxItems"}
        known |= {"minLength", "maxLength"}
        alone = ("$ref", "enum", "const", "anyOf", "oneOf")
        for word in schema:
            others = schema.keys() - SILENT - {word}
            if word not in known and (word not in alone or others):
                self._no(f"`{word}`" + (f" beside `{min(others)}`" if word in alone else ""))

    def _no(self, what: str) -> str:
        raise _refuse(f"schemas with {what}", self._where)

    def _refer(self, to: str) -> str:
        """Write what is named; it may name itself."""
        if to in self._named:
            return self._named[to]
        name = self._named[to] = f"named-{len(self._named)}"
        found = self._whole
        for part in to.removeprefix("#").strip("/").split("/") if to != "#" else ():
            name_there = part.replace("~1", "/").replace("~0", "~")
            found = found.get(name_there) if isinstance(found, Mapping) else None
            if found is None:
                self._no(f"the reference {to}")
        self._rules[name] = self._write(found)
        return name

    def _write_kind(self, kind: str, schema: Mapping[str, Any]) -> str:
        more = schema.get("additionalProperties", True)
        if kind == "object" and (schema.get("properties") or schema.get("required") or not more):
            return self._write_object(schema)
        if kind == "object" and more is not True:
            pair = f'string ": " {self._write(more)}'
            return self._add(f'"{{" ({pair} (", " {pair})*)? "}}"')
        if kind == "array" and schema.keys() & {"items", "minItems", "maxItems"}:
            return self._add(self._write_array(schema))
        if kind == "string" and schema.keys() & {"minLength", "maxLength"}:
            least, most = self._bounds(schema, "minLength", "maxLength")
            return self._add(rf'"\"" {_times("char", least, most)} "\""')
        return kind

    def _write_array(self, schema: Mapping[str, Any]) -> str:
        least, most = self._bounds(schema, "minItems", "maxItems")
        if not most:
            return '"[]"'
        item = self._write(schema.get("items", True))
        more = _times(f'(", " {item})', max(least - 1, 0), most - 1)
        return f'"[" ({item} {more}){"" if least else "?"} "]"'

    def _bounds(self, schema: Mapping[str, Any], low: str, high: str) -> tuple[int, int]:
        least = schema.get(low, 0)
        most = schema.get(high, MOST)
        if least > MOST:
            self._no(f"`{low}` over {MOST:,}")
        if most < least:
            self._no(f"`{low}` over `{high}`")
        return least, min(most, MOST)

    def _write_object(self, schema: Mapping[str, Any]) -> str:
        """Write the properties in their order; those that may be missing are there or not."""
        required = set(schema.get("required", ()))
        properties, others = (
            {**schema.get("properties", {})},
            schema.get("additionalProperties", True),
        )
        properties |= {
            name: others for name in schema.get("required", ()) if name not in properties
        }
        first, later = '""', '""'
        for name, inner in reversed(properties.items()):
            pair = f"{_quote(json.dumps(name, ensure_ascii=False) + ': ')} {self._write(inner)}"
            begun = self._add(f'", " {pair}' if name in required else f'(", " {pair})?', later)
            first = f"{pair} {later}" if name in required else f"({pair} {later} | {first})"
            later, first = begun, self._add(first)
        return f'"{{" {first} "}}"'

    def _add(self, *parts: str) -> str:
        name = f"part-{len(self._rules)}"
        self._rules[name] = " ".join(parts)
        return name


def _either(parts: Iterable[str]) -> str:
    listed = list(dict.fromkeys(parts))
    return f"({' | '.join(listed)})" if len(listed) > 1 else "".join(listed)


def _times(part: str, least: int, most: int) -> str:
    return f"{part}{{{least},{most}}}" if most else '""'


def _refuse(what: str, where: str) -> RequestError:
    return RequestError(
        "llama.cpp's llguidance reads the blank that begins a token of this vocabulary as none, "
        f"and its own grammars know no {what}",
        hint="serve the run or the folder that the GGUF was made from",
        where=where,
    )


def _quote(text: str) -> str:
    """Spell a text literally: letters of other scripts too, which GBNF reads as they are."""
    escapes = {"b": r"\x08", "f": r"\x0C"}  # GBNF has no \b and no \f
    spelled = json.dumps(text, ensure_ascii=False)
    return re.sub(r"\\(.)", lambda found: escapes.get(found[1], found[0]), spelled)
