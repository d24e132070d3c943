"""Turn what pydantic says of a recipe into what a person would say."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from tunesmith.errors import RecipeError
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import NESTED, Option, list_options, name_kinds

SECTIONS = tuple(Recipe.model_fields)
TYPES = ("literal[", "dict[", "list[", "tuple[", "constrained-", "function-", "int", "str")
WHOLES = {"tuple_type": "list", "dict_type": "mapping"}
UNIONS = ("method", "tuning", "optimizer", *NESTED)


def explain_mistake(problem: ValidationError, where: str) -> RecipeError:
    """Describe the first mistake, preferring an unknown name: it often causes the others."""
    found = [mistake for mistake in problem.errors() if not _follows(mistake, problem)]
    mistakes = sorted(
        _of_nearest_type(found), key=lambda mistake: mistake["type"] != "extra_forbidden"
    )
    first = mistakes[0]
    dotted = _dotted(first["loc"])
    message, hint = _describe(first, dotted)
    if len(mistakes) > 1:
        message += f" (and {len(mistakes) - 1} more)"
    return RecipeError(message, hint=hint, where=f"{where}, {dotted}" if where else dotted)


def _follows(mistake: Any, problem: ValidationError) -> bool:
    """Whether a list is called too short only because entries of it are wrong."""
    place = mistake["loc"]
    inside = (each["loc"][: len(place)] == place != each["loc"] for each in problem.errors())
    return mistake["type"] == "too_short" and any(inside)


def _of_nearest_type(found: Sequence[Any]) -> list[Any]:
    """Leave out why a value that may be of several types is none of the others."""
    nearest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
    for place in (mistake["loc"] for mistake in found):
        value = _of_value(place)
        if len(place) > len(nearest.get(value, ())):
            nearest[value] = place
    return [
        each for each in found if _as_type(each["loc"]) == _as_type(nearest[_of_value(each["loc"])])
    ]


def _of_value(place: tuple[Any, ...]) -> tuple[Any, ...]:
    """Leave out of a place the name that pydantic gives to one of several types, and the rest."""
    return place[: next((at for at, part in enumerate(place) if _is_type(part)), len(place))]


def _as_type(place: tuple[Any, ...]) -> tuple[Any, ...]:
    return place[: len(_of_value(place)) + 1]


def _is_type(part: object) -> bool:
    return isinstance(part, str) and part.startswith(TYPES)


def _describe(mistake: Any, dotted: str) -> tuple[str, str]:
    kind, given = mistake["type"], mistake.get("input")
    context = mistake.get("ctx", {})
    if kind == "extra_forbidden":
        section, _, name = dotted.rpartition(".")
        return _unknown(_option_of(section), name)
    if kind == "missing":
        return f"{dotted} is missing", _say_what(dotted, mistake["loc"])
    if kind == "union_tag_invalid":
        tags = [tag.strip("' ") for tag in context["expected_tags"].split(",")]
        near = difflib.get_close_matches(str(context["tag"]), tags, n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        name = context["discriminator"].strip("'")
        return f"{dotted}.{name} cannot be {context['tag']!r}", f"{guess}write {_either(tags)}"
    if kind == "union_tag_not_found":
        name = context["discriminator"].strip("'")
        return f"{dotted}.{name} is missing", _say_what(f"{dotted}.{name}", mistake["loc"])
    if kind == "literal_error":
        return f"{dotted} cannot be {given!r}", f"write {context['expected']}"
    if kind in WHOLES:
        listed = kind == "tuple_type" and isinstance(given, str)
        hint = f"write [{given}]" if listed else _say_what(dotted, mistake["loc"])
        return f"{dotted} is a {WHOLES[kind]}, not {given!r}", hint
    if kind in ("model_type", "model_attributes_type"):
        option = _option_of(dotted)
        section = option if option in NESTED else dotted.split(".", maxsplit=1)[0]
        return (
            f"{dotted} is a section, not {given!r}",
            f"write options under it; see `tunesmith recipe explain {section}`",
        )
    reason = mistake["msg"].removeprefix("Value error, ")
    return f"{dotted} cannot be {given!r}: {reason[:1].lower()}{reason[1:]}", _say_what(
        dotted, mistake["loc"]
    )


def _unknown(section: str, name: str) -> tuple[str, str]:
    """Find who owns an option that stands in the wrong place, or what was meant by a typo."""
    options = list_options()
    owners = [option for option in options if option.name == name]
    message = (
        f"there is no option {name} in {section}" if section else f"there is no section {name}"
    )
    if owners:
        places = _either([_place(option) for option in owners])
        return message, f"{name} belongs to {places}"
    if not section:
        near = difflib.get_close_matches(name, SECTIONS, n=1)
        hint = f"did you mean {near[0]}?" if near else f"sections are {', '.join(SECTIONS)}"
        return message, hint
    here = [option.name for option in options if option.section == section]
    near = difflib.get_close_matches(name, here, n=1)
    if not near:
        near = [_place(o) for o in options if difflib.get_close_matches(name, [o.name], n=1)][:1]
    hint = f"did you mean {near[0]}?" if near else f"see `tunesmith recipe explain {section}`"
    return message, hint


def _place(option: Option) -> str:
    if not option.choice:
        return option.dotted
    where = f"{option.section}.{option.choice[0]} is {name_kinds(option)}"
    return f"{option.dotted}, where {where}"


def _say_what(dotted: str, location: tuple[Any, ...]) -> str:
    """Say what an option is, as it is meant by the kind that was chosen."""
    name = _option_of(dotted)
    found = [option for option in list_options() if option.dotted == name]
    if not found:
        return "see `tunesmith recipe explain`"
    meant = (option for option in found if set(option.choice or ()) & set(map(str, location)))
    return next(meant, found[0]).help.split("\n")[0]


def _either(words: list[str]) -> str:
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]


def _dotted(location: tuple[Any, ...]) -> str:
    """Leave out of a location what pydantic adds: the chosen kind and names of validators."""
    kept: list[str] = []
    chosen: set[str] = set()
    for part in map(str, location):
        section = _option_of(".".join(kept))
        if part.startswith("tagged-") or _is_type(part):
            continue
        if section in UNIONS and section not in chosen and not part.isdigit():
            chosen.add(section)
        else:
            kept.append(part)
    return ".".join(kept)


def _option_of(dotted: str) -> str:
    """Leave out of a place in a recipe which entry of a list it is."""
    return ".".join(part for part in dotted.split(".") if not part.isdigit())
