"""Values of LLaMA-Factory's keys as its own parser would understand them."""

from __future__ import annotations

import json
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.paths import exists, expand
from tunesmith.recipe.llamafactory.keys import Key

FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
SPELLED = {
    "flag": "true or false",
    "count": "a whole number",
    "number": "a number",
    "text": "text",
    "list": "names with commas between them",
    "mapping": "a mapping",
}


def read_value(key: Key, value: Any, where: str) -> Any:
    """Return a value in the type of its key; None for null.

    Raises:
        RecipeError: if it has another type, or is none of the words the key takes.
    """
    if value is None:
        return None
    if key.type == "text" and value is True and not key.to:
        return "true"  # flags once, or still; nothing is read of it
    try:
        return _read(key, value)
    except ValueError:
        wanted = "one of " + ", ".join(key.type) if isinstance(key.type, list) else ""
        raise RecipeError(
            f"{key.name} cannot be {value!r}",
            hint=f"write {wanted or SPELLED[str(key.type)]}",
            where=where,
        ) from None


def _read(key: Key, value: Any) -> Any:
    if isinstance(key.type, list):
        return _word(key.type, value)
    readers = {
        "flag": _flag,
        "count": _count,
        "number": _number,
        "text": _text,
        "list": split,
        "mapping": _mapping,
    }
    return readers[key.type](value)


def split(value: Any) -> list[str]:
    """Part names at their commas."""
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return value
    if not isinstance(value, str):
        raise ValueError(value)
    return [part.strip() for part in value.split(",") if part.strip()]


def _word(words: list[str], value: Any) -> str:
    word = {False: "no", True: "steps"}[value] if isinstance(value, bool) else str(value)
    if word not in words:
        raise ValueError(value)
    return word


def _flag(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str) or value.lower() not in FLAGS:
        raise ValueError(value)
    return FLAGS[value.lower()]


def _count(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError(value)
    return int(number)


def _number(value: Any) -> float:
    """Read a number; YAML takes 1e-5 without a dot for text."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(value)
    number = float(value)
    if number - number != 0:
        raise ValueError(value)
    return int(number) if number == int(number) and not isinstance(value, float) else number


def _text(value: Any) -> str | None:
    """Read text; false is the same as none where a name is expected."""
    if value is False:
        return None
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        return ",".join(value)
    if value is True or not isinstance(value, str | int | float):
        raise ValueError(value)
    return str(value)


def _mapping(value: Any) -> Any:
    """Read a mapping, also spelled as JSON, or the path of a file."""
    if isinstance(value, dict) or (isinstance(value, str) and not value.startswith("{")):
        return value
    if not isinstance(value, str):
        raise ValueError(value)
    return json.loads(value)


def find_anywhere(name: str) -> str:
    """Spell a folder that exists so that it is found from any other; leave other names alone."""
    path = expand(name)
    return str(path.absolute()) if exists(path) else name
