"""Rules for calls of tools, in the format that a model writes them in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import RequestError, require
from tunesmith.inference.structured.lark import ANYTHING, Rules, quote
from tunesmith.inference.structured.wanted import check_schema
from tunesmith.inference.tool_calls import ToolFormat
from tunesmith.inference.tool_calls.announce import kinds_of
from tunesmith.inference.tool_calls.shape import ID, Shape

NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
TELLING = ("type", "properties", "required", "additionalProperties", "$defs", "definitions")
SILENT = ("title", "description", "examples", "default", "$schema", "$id", "$comment")
"""What may stand in a schema of arguments that are written one by one."""
NEW_ID = "/[A-Za-z0-9]{9}/"


@dataclass(frozen=True)
class Tagged:
    """How calls are spelled whose arguments stand between tags, texts without quotes."""

    before: str
    name_end: str
    key: str
    value: str
    value_end: str
    after: str


TAGGED = {
    "glm_xml": Tagged(
        "<tool_call>",
        "\n",
        "<arg_key>",
        "</arg_key>\n<arg_value>",
        "</arg_value>\n",
        "</tool_call>",
    ),
    "qwen_xml": Tagged(
        "<tool_call>\n<function=",
        ">\n",
        "<parameter=",
        ">\n",
        "\n</parameter>\n",
        "</function>\n</tool_call>",
    ),
}


@dataclass(frozen=True)
class Calling:
    """Calls that an answer must, or may, consist of.

    Attributes:
        tools: those that may be called, each as OpenAI's API takes it.
        many: whether one answer may hold several.
        free: whether it may hold text instead, or before them.
    """

    form: ToolFormat
    tools: Sequence[Mapping[str, Any]]
    many: bool
    free: bool = False

    def check(self) -> None:
        """Refuse tools whose arguments cannot be held to their schemas.

        Raises:
            RequestError: naming the tool.
        """
        for at, tool in enumerate(self.tools):
            where = f"tools[{at}].function"
            if not NAME.fullmatch(tool["function"]["name"]):
                hint = "take 1 to 64 letters, digits, points, dashes and underscores"
                raise RequestError("this is no name of a tool", hint=hint, where=f"{where}.name")
            schema = _schema_of(tool)
            check_schema(schema, f"{where}.parameters")
            tagged = self.form.name in TAGGED and not schema.keys() <= {*TELLING, *SILENT}
            if tagged or schema.get("type", "object") != "object":
                raise RequestError(
                    "arguments are the properties of an object, and these are not told so",
                    hint='write {"type": "object", "properties": {...}}',
                    where=f"{where}.parameters",
                )

    def write(self, rules: Rules) -> str:
        """Add its rules; return what stands for it in others."""
        tagged = TAGGED.get(self.form.name)
        shape = _shape_of(tagged) if tagged else self.form.shape
        assert shape is not None
        tools = [
            self._write_tagged(rules, at, tagged) if tagged else self._write_json(rules, at, shape)
            for at in range(len(self.tools))
        ]
        rules.add("tool", " | ".join(tools))
        many = ""
        if self.many and shape.joint is not None:
            many = f"({_spell(rules, shape.joint)} tool)*"
        rules.add("tools", f"tool {many} {_spell(rules, shape.after)}")
        calls = rules.add("calls", f"{_spell(rules, shape.before)} tools")
        return self._write_free(rules, shape) if self.free else calls

    def _write_json(self, rules: Rules, at: int, shape: Shape) -> str:
        tool = self.tools[at]
        name, between = quote(tool["function"]["name"]), _spell(rules, shape.between)
        return rules.add(f"tool_{at}", f"{name} {between} {rules.json_of(_schema_of(tool))}")

    def _write_tagged(self, rules: Rules, at: int, tagged: Tagged) -> str:
        tool = self.tools[at]
        schema = _schema_of(tool)
        required = schema.get("required", ())
        body = [rules.literal(f"{tool['function']['name']}{tagged.name_end}")]
        for place, (key, inner) in enumerate(schema.get("properties", {}).items()):
            rule = f"tool_{at}_{place}"
            value = _write_value(rules, rule, inner, schema, tagged)
            rules.add(rule, f"{rules.literal(f'{tagged.key}{key}{tagged.value}')} ({value})")
            body.append(rule if key in required else f"{rule}?")
        return rules.add(f"tool_{at}", " ".join(body))

    def _write_free(self, rules: Rules, shape: Shape) -> str:
        """Let text stand before the calls, or instead; none that would be read as a call.

        What is read is the longest that fits, so text must not fit what begins a call.
        """
        mark = self.form.opens[0]
        rest = _spell(rules, shape.before.removeprefix(mark))
        patterns = [ANYTHING, f"~/(?s:.*){_escape(mark)}(?s:.*)/"]
        if self.form.bare:
            names = "|".join(_escape(tool["function"]["name"]) for tool in self.tools)
            opening = _escape(shape.before) or f"({names}){_escape(shape.between)}"
            patterns.append(f"~/\\s*{opening}(?s:.*)/")
        said = rules.add("SAID", " & ".join(patterns))
        if rules.is_special(mark):
            return rules.add("free", f"calls | {said}? {rules.literal(mark)} {rest} tools | {said}")
        if self.form.bare:
            return rules.add("free", f"calls | {said}")
        return rules.add("free", f"{rules.up_to('head', mark)} {rest} tools | {said}")


def _shape_of(tagged: Tagged) -> Shape:
    return Shape(tagged.before, "", tagged.after, f"{tagged.after}\n{tagged.before}")


def _write_value(
    rules: Rules, rule: str, schema: Any, whole: Mapping[str, Any], tagged: Tagged
) -> str:
    """Spell a value and its end: a text as it is, anything else as JSON."""
    kinds, end = kinds_of(schema), rules.literal(tagged.value_end)
    if kinds == {"string"} and ("enum" in schema or "const" in schema):
        texts = schema.get("enum", [schema.get("const")])
        return " | ".join(f"{quote(each)} {end}" for each in texts)
    found = []
    if kinds != {"string"}:
        defined = {name: whole[name] for name in ("$defs", "definitions") if name in whole}
        beside = {**schema, **defined} if isinstance(schema, Mapping) else schema
        found.append(f"{rules.json_of(beside)} {end}")
    if "string" in kinds:
        found.append(rules.up_to(f"{rule}_text", tagged.value_end, _pattern_of(schema)))
    return " | ".join(found)


def _pattern_of(schema: Mapping[str, Any]) -> str:
    """Turn what a schema says of a text into patterns of all of it."""
    least, most = schema.get("minLength", 0), schema.get("maxLength", "")
    length = f"/(?s:.{{{least},{most}}})/"
    if pattern := schema.get("pattern"):
        before = "" if pattern.startswith("^") else "(?s:.*)"
        after = "" if pattern.endswith("$") and not pattern.endswith("\\$") else "(?s:.*)"
        inner = pattern.removeprefix("^") if not before else pattern
        inner = inner.removesuffix("$") if not after else inner
        spelled = require("llguidance", extra="serve").regex_to_lark(f"({inner})", "dw")
        return f"/{before}{spelled}{after}/ & {length}"
    return length


def _spell(rules: Rules, text: str) -> str:
    """Spell what stands around calls; ids in it are any."""
    pieces = [rules.literal(piece) for piece in re.split(rf"{ID}\d", text)]
    return f" {NEW_ID} ".join(pieces)


def _schema_of(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    schema: Mapping[str, Any] = tool["function"].get("parameters") or {
        "type": "object",
        "properties": {},
        "additionalProperties": False,
    }
    return schema if "type" in schema or "$ref" in schema else {"type": "object", **schema}


def _escape(text: str) -> str:
    return re.escape(text).replace("/", "\\/").replace("\n", "n").replace("\\ ", " ")
