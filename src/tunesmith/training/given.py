"""Read what somebody gives: a recipe of ours, or a file of LLaMA-Factory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tunesmith.models.around import look_around
from tunesmith.recipe.llamafactory.convert import Converted, convert
from tunesmith.recipe.llamafactory.file import is_theirs, read_file
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.yaml_file import read_yaml


def read_given(path: Path, overrides: Sequence[str] = ()) -> Converted:
    """Return the recipe in a file, whoever's words it is written in.

    Raises:
        RecipeError: naming the option or the key.
    """
    if not is_theirs(read_yaml(path)):
        return Converted(load_recipe(path, overrides), {})
    return convert(read_file(path, overrides), look_around())
