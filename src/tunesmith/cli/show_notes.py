"""Print what becomes of the keys of another tool's file."""

from __future__ import annotations

from collections.abc import Mapping

import typer


def show_notes(notes: Mapping[str, str]) -> None:
    """Print why each key is not there, or means something else."""
    if notes:
        typer.echo("Not taken over, or not quite:")
    for name, text in notes.items():
        typer.echo(f"  {name}: {text}")
