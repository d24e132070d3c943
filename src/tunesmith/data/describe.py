"""What a person wants to look at: a recipe, or a file described as one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tunesmith.data.sources import check_name
from tunesmith.errors import DataError
from tunesmith.paths import exists, expand
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.mistakes import explain_mistake
from tunesmith.recipe.options import Recipe

MAX_RECIPE = 1 << 20
OPTIONS = {
    "model": "model.name",
    "template": "model.template",
    "method": "method.name",
    "validation": "data.validation",
    "max_tokens": "data.max_tokens",
    "encoding": "data.encoding",
}
"""Options of the command line and what they are called in a recipe."""
ASIDE: dict[str, dict[str, Any]] = {
    "grpo": {"rewards": ["exact_match"]},
    "ppo": {"rewards": ["exact_match"]},
    "distill": {"teacher": "starter"},
}
"""What methods must be told besides, and rows do not depend on."""


def describe(file: str, given: Mapping[str, Any]) -> Recipe:
    """Take a recipe as it is, or describe a file or folder as a recipe would.

    Args:
        given: options by the names of OPTIONS, None where the command line names none.

    Raises:
        DataError: if no file is named, or an option is given beside a recipe, which says it itself.
    """
    asked = {OPTIONS[name]: value for name, value in given.items() if value is not None}
    if not file.strip():
        raise DataError(
            "no file is named",
            hint="give a data file, a folder of them, or a recipe",
            where="command line",
        )
    if not is_recipe(file):
        return _describe_file(file, asked)
    for name in given:
        if OPTIONS[name] in asked:
            raise DataError(
                f"--{name.replace('_', '-')} has no effect: a recipe says it itself",
                hint=f"leave it out, or write {OPTIONS[name]} into the recipe",
                where=file,
            )
    return load_recipe(expand(file))


def is_recipe(file: str) -> bool:
    """Whether a file is a recipe; one in JSON is known by its sections."""
    path = expand(file)
    kind = path.suffix.lower()
    if kind != ".json" or not exists(path) or path.stat().st_size > MAX_RECIPE:
        return kind in (".yaml", ".yml")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and content.keys() >= {"model", "data"}


def _describe_file(file: str, asked: Mapping[str, Any]) -> Recipe:
    raw: dict[str, dict[str, Any]] = {"model": {"name": "starter"}, "data": {"train": file}}
    for option, value in asked.items():
        section, name = option.split(".")
        raw.setdefault(section, {})[name] = value
    method = raw.get("method", {})
    method |= ASIDE.get(method.get("name", ""), {})
    for name in (file, asked.get("data.validation", "")):
        check_name(Path(name))
    try:
        return Recipe.model_validate(raw)
    except ValidationError as problem:
        raise explain_mistake(problem, file) from None
