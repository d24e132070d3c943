"""Read a LLaMA-Factory file: known keys with values of the right type, each with its line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.llamafactory.keys import list_keys
from tunesmith.recipe.llamafactory.values import read_value
from tunesmith.recipe.mistakes import SECTIONS
from tunesmith.recipe.yaml_file import parse_value, read_yaml

RENAMED = {
    "evaluation_strategy": "eval_strategy",
    "no_cuda": "use_cpu",
    "dpo_beta": "pref_beta",
    "orpo_beta": "pref_beta",
    "kto_beta": "pref_beta",
    "dpo_loss": "pref_loss",
    "dpo_ftx": "pref_ftx",
    "kto_ftx": "pref_ftx",
    "num_layer_trainable": "freeze_trainable_layers",
    "name_module_trainable": "freeze_trainable_modules",
}
"""What keys of earlier versions are called now."""


@dataclass(frozen=True)
class TheirFile:
    """What somebody wrote for LLaMA-Factory.

    Attributes:
        path: the file.
        given: the keys it holds, with those of the command line in their place.
        ours: overrides of the command line that name options of ours.
        replaced: keys whose values come from the command line.
    """

    path: Path
    given: dict[str, Any]
    ours: tuple[str, ...] = ()
    replaced: frozenset[str] = frozenset()

    def __getitem__(self, name: str) -> Any:
        """Return the value of a key, its default there if it is not given."""
        given = self.given.get(name)
        return list_keys()[name].default if given is None else given

    def has(self, name: str) -> bool:
        """Whether a key is given a value other than null."""
        return self.given.get(name) is not None

    def place(self, name: str) -> str:
        """Name the file and the line of a key."""
        return f"command line, {name}" if name in self.replaced else _line(self.path, name)

    def refusal(self, name: str, message: str, hint: str) -> RecipeError:
        """Refuse a key where it stands."""
        return RecipeError(message, hint=hint, where=self.place(name))


def is_theirs(raw: dict[str, Any]) -> bool:
    """Whether a file is LLaMA-Factory's: flat keys of theirs and no section of ours."""
    return not any(name in SECTIONS for name in raw) and any(name in list_keys() for name in raw)


def read_file(path: Path, overrides: Sequence[str] = ()) -> TheirFile:
    """Read a file and the overrides of the command line.

    Args:
        overrides: `key=value` as LLaMA-Factory takes them, or `section.option=value` of ours.

    Raises:
        RecipeError: naming the key, its line, and the nearest key there is.
    """
    raw = read_yaml(path)
    ours, replaced = [], set()
    for override in overrides:
        name, equals, value = override.partition("=")
        name = name.strip().removeprefix("--")
        if "." in name:
            ours.append(override)
        elif equals and name:
            raw[name] = parse_value(value, where=override)
            replaced.add(name)
        else:
            raise RecipeError(
                f"{override!r} is no override",
                hint="write key=value, such as learning_rate=1e-5",
                where="command line",
            )
    theirs = TheirFile(path, {}, tuple(ours), frozenset(replaced))
    given = {RENAMED.get(name, name): _read(theirs, name, value) for name, value in raw.items()}
    return replace(theirs, given=given)


def _read(theirs: TheirFile, name: str, value: Any) -> Any:
    known = name if name in list_keys() else RENAMED.get(name, name)
    if known not in list_keys():
        near = difflib.get_close_matches(name, list_keys(), n=1)
        raise RecipeError(
            f"LLaMA-Factory has no key {name}",
            hint=f"did you mean {near[0]}?"
            if near
            else "remove it; docs/reference/llamafactory.md lists the keys",
            where=theirs.place(name),
        )
    return read_value(list_keys()[known], value, theirs.place(name))


def _line(path: Path, name: str) -> str:
    """Name the line of a key, or the command line where the file does not hold it."""
    names = "|".join(map(re.escape, (name, *(old for old in RENAMED if RENAMED[old] == name))))
    pattern = re.compile(rf"""\s*[{{,]?\s*["']?(?:{names})["']?\s*:""")
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), 1):
        if pattern.match(line):
            return f"{path}:{number}, {name}"
    return f"{path}, {name}"
