"""Rewards that a person wrote in Python."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.methods.rewards.sample import Sample
from tunesmith.paths import exists, expand
from tunesmith.recipe.rewards import Function
from tunesmith.templates.parts import spell_places

GIVEN: dict[str, Callable[[Sample], Any]] = {
    "messages": lambda sample: [in_words(message) for message in sample.messages],
    "completions": lambda sample: sample.completion,
    "completion_ids": lambda sample: list(sample.completion_ids),
    "references": lambda sample: sample.reference,
    "cut": lambda sample: sample.cut,
}
"""What a function is given by keyword, a list each with one entry a sample."""
WHERE = "method.rewards"


def in_words(message: Mapping[str, Any]) -> dict[str, Any]:
    """Write a message with words where it shows something, and the files of that in `media`."""
    if "media" not in message:
        return dict(message)
    files = [source for _, source, *_ in message["media"]]
    return {**message, "content": spell_places(message["content"]), "media": files}


def find_file(options: Function) -> Path:
    """Find the file of a function.

    Raises:
        RecipeError: if it is not there.
    """
    path = expand(options.function.rpartition(":")[0])
    if not exists(path) or not path.is_file():
        raise RecipeError(
            f"there is no file {path}",
            hint="write function: path/to/rewards.py:name_of_the_function",
            where=WHERE,
        )
    return path.absolute()


def load_function(options: Function) -> Callable[[Sequence[Sample]], Any]:
    """Load a function and check that it takes what it is given.

    Raises:
        RecipeError: if its file cannot be run, has no such function, or it asks for more.
    """
    path, name = find_file(options), options.function.rpartition(":")[2]
    found = vars(_run(path)).get(name)
    if not callable(found):
        raise RecipeError(
            f"there is no function {name} in {path.name}",
            hint="write function: path/to/rewards.py:name_of_the_function",
            where=str(path),
        )
    names = _names_of(found, path)
    return lambda samples: found(**{name: [GIVEN[name](one) for one in samples] for name in names})


def _run(path: Path) -> Any:
    """Run a file as a module of its own; what lies beside it can be imported."""
    spec = spec_from_file_location(f"rewards_{path.stem}", path)
    assert spec is not None  # its name ends with .py
    assert spec.loader is not None
    module = module_from_spec(spec)
    beside = str(path.parent)
    sys.path.insert(0, beside)
    sys.modules[spec.name] = module  # where dataclasses and pickle look for it
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as problem:
        raise RecipeError(
            f"the file of the reward cannot be run: {type(problem).__name__}: {problem}",
            hint=f"mend it until `python {path.name}` runs",
            where=str(path),
        ) from problem
    finally:
        sys.path.remove(beside)
    return module


def _names_of(function: Callable[..., Any], path: Path) -> list[str]:
    """List what a function is given: what it names, or all if it takes any keyword."""
    kinds = inspect.Parameter
    try:
        asked = inspect.signature(function).parameters.values()
    except ValueError as problem:
        raise RecipeError(
            f"nobody knows what the reward takes: {problem}",
            hint="name a function that is written in Python",
            where=str(path),
        ) from None
    if inspect.iscoroutinefunction(function):
        raise RecipeError(
            "the reward is an async function, and nobody would wait for what it returns",
            hint="write def instead of async def, and asyncio.run inside of it",
            where=str(path),
        )
    if any(each.kind is kinds.VAR_KEYWORD for each in asked):
        taken = list(GIVEN)
    else:
        taken = [each.name for each in asked if each.name in GIVEN]
    needed = [
        each.name
        for each in asked
        if each.kind in (kinds.POSITIONAL_OR_KEYWORD, kinds.KEYWORD_ONLY, kinds.POSITIONAL_ONLY)
        and each.default is kinds.empty
        and (each.name not in GIVEN or each.kind is kinds.POSITIONAL_ONLY)
    ]
    if needed:
        raise RecipeError(
            f"the reward asks for {', '.join(needed)}, which it is not given",
            hint=f"it is called by keyword with {', '.join(GIVEN)}",
            where=str(path),
        )
    return taken
