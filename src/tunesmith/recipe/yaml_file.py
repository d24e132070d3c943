"""Read YAML strictly: no key twice, no code, every mistake with its line."""

from __future__ import annotations

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from tunesmith.errors import RecipeError

BOOLEAN = "tag:yaml.org,2002:bool"


class _StrictLoader(yaml.SafeLoader):
    """The safe loader, without its surprises.

    The last of two equal keys wins in silence there, `on`, `off`, `yes` and `no` are booleans, and
    a character may be one half of a pair.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012  pyyaml reads it as a plain class attribute
        first: [(tag, pattern) for tag, pattern in resolvers if tag != BOOLEAN]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> Any:
        text = super().construct_scalar(node)
        try:  # JSON spells what lies beyond U+FFFF in two halves
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise yaml.constructor.ConstructorError(
                problem="half of a character", problem_mark=node.start_mark
            ) from None

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key.value, str):
                raise yaml.constructor.ConstructorError(
                    problem=f"`{key.value}` stands twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)


_StrictLoader.add_implicit_resolver(
    BOOLEAN, re.compile("(?:true|True|TRUE|false|False|FALSE)$"), [*"tTfF"]
)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML or JSON file that holds one mapping.

    Raises:
        RecipeError: naming line and column.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except IsADirectoryError:
        raise RecipeError(
            "a recipe is a file, this is a folder",
            hint="give the .yaml file; to go on with a run, `tunesmith runs resume`",
            where=str(path),
        ) from None
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "it is not UTF-8"
        raise RecipeError(
            f"the recipe cannot be read: {reason}",
            hint="check the path; `tunesmith recipe new` writes a recipe",
            where=str(path),
        ) from None
    content = _parse(text, str(path))
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise RecipeError(
            "the recipe is no mapping of sections",
            hint="write `model:`, `data:` and so on; `tunesmith recipe new` shows how",
            where=str(path),
        )
    return content


def parse_value(text: str, *, where: str) -> Any:
    """Read one value as YAML spells it: `1e-5`, `true`, `[a, b]`, `{rank: 8}`."""
    return _parse(text, where)


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.load(text, Loader=_StrictLoader)  # noqa: S506  derived from SafeLoader
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        place = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise RecipeError(
            f"not valid YAML: {problem.problem or problem.context}",
            hint="check indentation, quotes and colons on that line and the one before",
            where=where + place,
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise RecipeError(
            f"not valid YAML: {problem}", hint="remove what cannot be read", where=where
        ) from None
