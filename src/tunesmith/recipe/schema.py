"""The options of a recipe as data: one source for help, forms, editors and the reference."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from tunesmith.errors import RecipeError
from tunesmith.recipe.data import HeldOut, Source
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.quantize import Quantize
from tunesmith.recipe.rewards import Reward
from tunesmith.recipe.rope import RopeScaling
from tunesmith.recipe.section import MOST

QUANTIZE, REWARDS = "model.quantize", "method.rewards"
NESTED: dict[str, tuple[Any, str]] = {
    QUANTIZE: (Quantize, "How to keep the base"),
    "model.rope_scaling": (RopeScaling, "How to stretch positions"),
    REWARDS: (Reward, "What an answer is judged by"),
}
"""Options that are sections of several kinds themselves, and what their kinds choose."""


@dataclass(frozen=True)
class Option:
    """One option of a recipe.

    Attributes:
        section: the section it stands in, `data.train` for the options of one source,
            `model.quantize` for those of a quantization, and so on.
        choice: tag and values of the kinds it belongs to, such as (`kind`, `lora`), if it does not
            belong to all of its section.
        type: how its values are spelled, for people.
        default: its default, spelled as YAML spells it; empty if it must be given.
        help: its docstring.
    """

    section: str
    name: str
    choice: tuple[str, ...] | None
    type: str
    default: str
    help: str

    @property
    def dotted(self) -> str:
        """Spell it as overrides do."""
        return f"{self.section}.{self.name}"

    @property
    def called(self) -> set[str]:
        """All that a person may ask for it by: its names, and the kinds or values it knows."""
        kinds = self.choice[1:] if self.choice else ()
        values = self.type.split(" | ") if " | " in self.type else ()
        return {self.section, self.dotted, self.name, *kinds, *values}


def json_schema() -> dict[str, Any]:
    """Return the JSON schema of a recipe, for editors and forms."""
    schema = Recipe.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


@cache
def list_options() -> tuple[Option, ...]:
    """List every option, in the order of the sections."""
    found: list[Option] = []
    for section, field in Recipe.model_fields.items():
        found += _tag_of(section)
        found += _options_of(section, _models(field.annotation))
        for nested in (name for name in NESTED if name.startswith(f"{section}.")):
            found += _options_of_nested(nested)
        if section == "data":
            found += _options_of("data.train", [Source])
            held_out = _options_of("data.validation", [HeldOut])
            found += [option for option in held_out if option.name not in Source.model_fields]
    return tuple(found)


def _options_of_nested(section: str) -> list[Option]:
    annotation, what = NESTED[section]
    kinds = describe_section(section)
    tag = Option(section, "kind", None, " | ".join(kinds), "", f"{what}: {', '.join(kinds)}.")
    return [tag, *_options_of(section, _models(annotation))]


def describe_section(section: str) -> dict[str, str]:
    """Say what each kind of a section is for: docstring by tag value, or by an empty text."""
    kinds = {}
    field = Recipe.model_fields[section.split(".", maxsplit=1)[0]]
    annotation = NESTED[section][0] if section in NESTED else field.annotation
    for model in _models(annotation):
        choice = _choice(model)
        kinds[choice[1] if choice else ""] = " ".join((model.__doc__ or "").split())
    return kinds


def name_kinds(option: Option) -> str:
    """Name the kinds of its section that an option belongs to, or the few that it does not."""
    _, *kinds = option.choice or ("",)
    others = [kind for kind in describe_section(option.section) if kind not in kinds]
    few = len(others) < len(kinds) - len(others)
    return f"any but {', '.join(others)}" if few and others else ", ".join(kinds)


def _options_of(section: str, models: Sequence[type[BaseModel]]) -> list[Option]:
    """List what all kinds of a section share, then the rest, each option once."""
    kinds: dict[Option, list[str]] = {}
    for model in models:
        tag, *kind = _choice(model) or ("",)
        for name, field in model.model_fields.items():
            if name != tag:
                kinds.setdefault(_describe(section, name, field, model), []).extend(kind)
    shared = [option for option, owners in kinds.items() if len(owners) in (0, len(models))]
    tag = (_choice(models[0]) or ("",))[0]
    return [*shared, *(_owned(o, tag, k) for o, k in kinds.items() if o not in shared)]


def _owned(option: Option, tag: str, kinds: Sequence[str]) -> Option:
    return replace(option, choice=(tag, *kinds))


def _describe(section: str, name: str, field: FieldInfo, model: type[BaseModel]) -> Option:
    return Option(
        section=section,
        name=name,
        choice=None,
        type=_spell_type(field, model, name),
        default=_spell_default(field),
        help=" ".join((field.description or "").split()),
    )


def _tag_of(section: str) -> list[Option]:
    """Describe the option that chooses among the kinds of a section, if it has some."""
    default = Recipe.model_fields[section].default
    choice = _choice(type(default)) if isinstance(default, BaseModel) else None
    if choice is None:
        return []
    kinds = describe_section(section)
    what = f"Which {section} to use: {', '.join(kinds)}."
    return [Option(section, choice[0], None, " | ".join(kinds), choice[1], what)]


def _choice(model: type[BaseModel]) -> tuple[str, str] | None:
    for tag in ("name", "kind"):
        field = model.model_fields.get(tag)
        values = get_args(field.annotation) if field else ()
        if field and values and field.default in values:
            return tag, str(field.default)
    return None


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _spell_default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    return "" if default is PydanticUndefined else spell(default)


def spell(value: Any) -> str:
    """Spell a value as YAML does: true, none, [a, b]; a source by its path."""
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(spell, value)) + "]"
    if isinstance(value, dict) and "path" in value:
        return str(value["path"])
    return str(value)


def _spell_type(field: FieldInfo, model: type[BaseModel], name: str) -> str:
    """Spell a type from the JSON schema, which knows limits and choices."""
    schema = model.model_json_schema()["properties"][name]
    kinds = schema.get("anyOf", [schema])
    spelled = [_spell_kind(kind) for kind in kinds if kind.get("type") != "null"]
    return " or ".join(dict.fromkeys(spelled))


NUMBERS = {"integer": "whole number", "number": "number"}
PLAIN = {"boolean": "true or false", "array": "list", "object": "mapping", "string": "text"}


def _spell_kind(kind: dict[str, Any]) -> str:
    if "enum" in kind:
        return " | ".join(map(str, kind["enum"]))
    name = str(kind.get("type", "object"))
    if name not in NUMBERS:
        return PLAIN.get(name, "text")
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    given = {sign: kind[limit] for limit, sign in limits.items() if limit in kind}
    stated = [f"{sign} {limit:.10g}" for sign, limit in given.items() if limit != MOST]
    return " ".join([NUMBERS[name], ", ".join(stated)]).strip()


def find_options(name: str | None) -> tuple[Option, ...]:
    """List the options of a section or kind, one option, or all.

    Raises:
        RecipeError: with the nearest name that exists.
    """
    options = list_options()
    if name is None:
        return options
    found = tuple(option for option in options if name in option.called)
    if found:
        return found
    known = sorted({*(o.section for o in options), *(o.dotted for o in options)})
    near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(
        name, [option.name for option in options], n=1
    )
    raise RecipeError(
        f"there is no section or option {name}",
        hint=f"did you mean {near[0]}?"
        if near
        else f"sections are {', '.join(Recipe.model_fields)}",
        where="command line",
    )
