"""Templates of our own, for models that ship none."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import RecipeError
from tunesmith.paths import exists, expand

FOLDER = Path(__file__).parent


def named_template(name_or_path: str) -> str:
    """Return the jinja source of one of our templates, or of a file.

    Raises:
        RecipeError: listing the names, if there is neither.
    """
    names = sorted(path.stem for path in FOLDER.glob("*.jinja"))
    if name_or_path in names:
        return (FOLDER / f"{name_or_path}.jinja").read_text(encoding="utf-8")
    path = expand(name_or_path)
    if exists(path) and path.is_file():
        return _read_template(path)
    raise RecipeError(
        f"there is no chat template {name_or_path!r}",
        hint=f"take one of {', '.join(names)}, or a path to a .jinja file",
        where="model.template",
    )


def _read_template(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise RecipeError(
            f"the chat template cannot be read: {problem}",
            hint="give a jinja file in UTF-8",
            where=str(path),
        ) from None
