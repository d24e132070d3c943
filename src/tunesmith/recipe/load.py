"""Read a recipe file, apply `section.option=value` overrides, and explain what is wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from tunesmith.errors import RecipeError
from tunesmith.paths import exists, expand
from tunesmith.recipe.mistakes import SECTIONS, explain_mistake
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.defaults import fill_defaults
from tunesmith.recipe.schema import REWARDS, list_options
from tunesmith.recipe.yaml_file import parse_value, read_yaml

DEFAULT_CHOICE = {
    "method": ("name", "sft"),
    "tuning": ("kind", "lora"),
    "optimizer": ("name", "adamw"),
}
"""What a section means that does not say which of its kinds it is."""
PATHS = {
    "model": ("name", "template"),
    "data": ("info",),
    "method": ("reference", "teacher"),
    "tuning": ("from_adapter",),
}
"""Options that may hold a path, by section."""


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Return the validated recipe in `path`.

    Paths in the file are looked for beside the file, then in the current folder; paths in
    overrides in the current folder only. What exists becomes absolute.

    Args:
        overrides: each `section.option=value`, the value as YAML spells it.

    Raises:
        RecipeError: naming the option, and the nearest one that exists.
    """
    raw = read_yaml(path)
    find_paths(raw, [path.absolute().parent, Path.cwd()])
    return build_recipe(raw, overrides, where=str(path))


def build_recipe(raw: dict[str, Any], overrides: Sequence[str] = (), *, where: str = "") -> Recipe:
    """Validate a recipe that is already a dict.

    Raises:
        RecipeError: naming the option, and the nearest one that exists.
    """
    raw = copy.deepcopy(raw)
    for override in overrides:
        apply_override(raw, override)
    find_paths(raw, [Path.cwd()])
    for section, (tag, choice) in DEFAULT_CHOICE.items():
        if isinstance(raw.get(section), dict):
            raw[section].setdefault(tag, choice)
    try:
        return fill_defaults(Recipe.model_validate(raw))
    except ValidationError as problem:
        raise explain_mistake(problem, where) from None


def apply_override(raw: dict[str, Any], override: str) -> None:
    """Set one dotted option in `raw`, in place: `optimizer.learning_rate=1e-5`.

    A whole section may be set too: `tuning={kind: full}`.

    Raises:
        RecipeError: if it names no place in a recipe.
    """
    dotted, equals, value = override.partition("=")
    *sections, option = dotted.strip().split(".")
    if not equals or not all((*sections, option)) or (not sections and option not in SECTIONS):
        raise RecipeError(
            f"{override!r} is no option",
            hint=_suggest(option, value or "VALUE"),
            where="command line",
        )
    inner = raw
    for section in sections:
        following = inner.get(section)
        if following is None:
            following = inner[section] = {}
        if not isinstance(following, dict):
            raise RecipeError(
                f"{section} is not a section, so {dotted} cannot be set in it",
                hint=_suggest(option, value)
                if section == "train"
                else "see `tunesmith recipe explain` for sections and their options",
                where="command line",
            )
        inner = following
    inner[option] = parse_value(value, where=override)


def _suggest(name: str, value: str) -> str:
    """Spell the override that sets an option of this name."""
    owner = next((option for option in list_options() if option.name == name), None)
    if owner is None:
        return "write section.option=value, such as optimizer.learning_rate=1e-5"
    if owner.section == "data.train":
        return f"write it beside its path: data.train=[{{path: ..., {name}: {value}}}]"
    if owner.section == REWARDS:
        return f"write it beside its kind: {REWARDS}=[{{kind: ..., {name}: {value}}}]"
    return f"did you mean {owner.dotted}={value}?"


def find_paths(raw: dict[str, Any], folders: Sequence[Path]) -> None:
    """Make every path that exists below one of `folders` absolute, in place."""
    for holder, key in _path_places(raw):
        value = holder[key]
        named = key == "reference" and value in ("base", "none")
        if isinstance(value, str) and value and value != "starter" and not named:
            holder[key] = _absolute(value, folders)


def _path_places(raw: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Yield each place that may hold a path, as a holder and its key."""
    sections = {name: raw[name] for name in PATHS if isinstance(raw.get(name), dict)}
    for section, options in sections.items():
        yield from ((options, option) for option in PATHS[section] if option in options)
    adapters = sections.get("model", {}).get("adapters")
    if isinstance(adapters, list):
        yield from ((adapters, place) for place, name in enumerate(adapters))
    yield from _reward_places(sections.get("method", {}).get("rewards"))
    for option in ("train", "validation"):
        yield from _source_places(sections.get("data", {}), option)


def _source_places(data: dict[str, Any], option: str) -> Iterator[tuple[Any, Any]]:
    """Yield the places of sources: one, a list of them, or held-out ones by their names."""
    value = data.get(option)
    places: list[tuple[Any, Any]] = [(data, option)]
    if isinstance(value, list):
        places = [(value, at) for at in range(len(value))]
    elif isinstance(value, dict) and "path" not in value:
        places = [(value, name) for name in value]
    for holder, key in places:
        source = holder.get(key) if isinstance(holder, dict) else holder[key]
        if isinstance(source, dict) and "path" in source:
            yield source, "path"
        elif isinstance(source, str):
            yield holder, key


def _reward_places(rewards: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the places of functions and models that answers are judged by."""
    for reward in rewards if isinstance(rewards, list) else [rewards]:
        if isinstance(reward, dict):
            yield from ((reward, option) for option in ("function", "model") if option in reward)


def _absolute(value: str, folders: Sequence[Path]) -> str:
    file, is_function, function = value.rpartition(".py:")
    path = expand(f"{file}.py" if is_function else value)
    for folder in folders:
        if exists(folder / path):
            found = str((folder / path).absolute())
            return f"{found}:{function}" if is_function else found
    return value


def dump_recipe(recipe: Recipe) -> str:
    """Spell a recipe as YAML with every default written out."""
    plain = recipe.model_dump(mode="json")
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=100)
