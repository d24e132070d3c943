"""Print what becomes of the keys of another tool's file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tunesmith.models.given import Given
    from tunesmith.recipe.llamafactory.use import Verb


def show_notes(notes: Mapping[str, str]) -> None:
    """Print why each key is not there, or means something else."""
    if notes:
        typer.echo("Not taken over, or not quite:")
    for name, text in notes.items():
        typer.echo(f"  {name}: {text}")


def find_noted(
    name: str, overrides: Sequence[str] | None, verb: Verb, *, to_export: bool = False
) -> Given:
    """Find the model that somebody gives, and print what becomes of a file's keys."""
    from tunesmith.models.given import find_given

    given = find_given(name, overrides or (), verb, to_export=to_export)
    show_notes(given.use.notes if given.use else {})
    return given
