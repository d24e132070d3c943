"""Fields that say what an answer must look like: OpenAI's, and those of vLLM's users."""

from __future__ import annotations

from typing import Annotated, Literal

import orjson
from pydantic import ConfigDict, Field

from tunesmith.errors import RequestError
from tunesmith.inference.structured import Wanted
from tunesmith.serving.limits import MAX_OPTIONS
from tunesmith.serving.schema.sampling import Body, JsonObject, Words

Schema = JsonObject | str
Options = Annotated[list[Words], Field(max_length=MAX_OPTIONS)]
ANY_OBJECT = {"type": "object"}


class JsonSchema(Body):
    """A named schema."""

    model_config = ConfigDict(extra="forbid", strict=True, serialize_by_alias=True)

    name: Words | None = None
    description: Words | None = None
    schema_: JsonObject | None = Field(default=None, alias="schema")
    strict: bool | None = None
    """Without effect: an answer is always held to the whole schema."""


class ResponseFormat(Body):
    """What an answer is to be."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None


class StructuredOutputs(Body):
    """What an answer is to be, in vLLM's words; one of them."""

    model_config = ConfigDict(extra="forbid", strict=True, serialize_by_alias=True)

    json_: Schema | None = Field(default=None, alias="json")
    regex: Words | None = None
    choice: Options | None = None
    grammar: Words | None = None
    json_object: bool | None = None


class FormOptions(Body):
    """What an answer must look like; one of the fields at most."""

    response_format: ResponseFormat | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_json: Schema | None = None
    guided_regex: Words | None = None
    guided_choice: Options | None = None
    guided_grammar: Words | None = None

    def wanted(self) -> Wanted | None:
        """Return the form that is asked for, if one is.

        Raises:
            RequestError: if several are, or a schema is missing.
        """
        found = [each for each in (self._response(), *self._structured(), *self._guided()) if each]
        if len(found) > 1:
            raise RequestError(
                f"{found[0].where} and {found[1].where} ask for two forms of one answer",
                hint="send one of them",
                where=found[1].where,
            )
        return found[0] if found else None

    def _response(self) -> Wanted | None:
        asked = self.response_format
        if asked is None:
            return None
        if asked.json_schema is not None and asked.type != "json_schema":
            raise RequestError(
                f"a schema has no effect on the type {asked.type}",
                hint='send "type": "json_schema" with it, or leave it out',
                where="response_format.json_schema",
            )
        if asked.type == "text":
            return None
        if asked.type == "json_object":
            return Wanted("json", ANY_OBJECT, "response_format")
        where = "response_format.json_schema.schema"
        if asked.json_schema is None or asked.json_schema.schema_ is None:
            raise RequestError("the schema is missing", hint="send it", where=where)
        return Wanted("json", asked.json_schema.schema_, where)

    def _structured(self) -> list[Wanted | None]:
        asked, name = self.structured_outputs, "structured_outputs"
        if asked is None:
            return []
        if all(each in (None, False) for each in asked.model_dump().values()):
            raise RequestError(
                "nothing is asked of the answer",
                hint="send json, regex, choice, grammar or json_object, or leave it out",
                where=name,
            )
        return [
            _json(asked.json_, f"{name}.json"),
            _text("regex", asked.regex, f"{name}.regex"),
            _choice(asked.choice, f"{name}.choice"),
            _text("grammar", asked.grammar, f"{name}.grammar"),
            Wanted("json", ANY_OBJECT, f"{name}.json_object") if asked.json_object else None,
        ]

    def _guided(self) -> list[Wanted | None]:
        return [
            _json(self.guided_json, "guided_json"),
            _text("regex", self.guided_regex, "guided_regex"),
            _choice(self.guided_choice, "guided_choice"),
            _text("grammar", self.guided_grammar, "guided_grammar"),
        ]


def _json(schema: Schema | None, where: str) -> Wanted | None:
    if not isinstance(schema, str):
        return None if schema is None else Wanted("json", schema, where)
    try:
        return Wanted("json", orjson.loads(schema), where)
    except orjson.JSONDecodeError:
        raise RequestError(
            "the schema is no JSON", hint="send it as an object", where=where
        ) from None


def _text(kind: Literal["regex", "grammar"], text: str | None, where: str) -> Wanted | None:
    if text == "":
        raise RequestError(f"the {kind} is empty", hint="write one, or leave it out", where=where)
    return None if text is None else Wanted(kind, text, where)


def _choice(options: list[str] | None, where: str) -> Wanted | None:
    return None if options is None else Wanted("choice", options, where)
