"""`tunesmith train`: from a recipe to a trained model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

Recipe = Annotated[Path, typer.Argument(help="A recipe in YAML, or LLaMA-Factory's.")]
Overrides = Annotated[
    Optional[list[str]],
    typer.Argument(metavar="[SECTION.OPTION=VALUE]...", help="Options that replace the file's."),
]


def train(
    recipe: Recipe,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what the run would do and need, then stop.")
    ] = False,
    detach: Annotated[
        bool, typer.Option("--detach", help="Train in the background; survives the terminal.")
    ] = False,
) -> None:
    """Train a model as a recipe says."""
    from tunesmith.cli.show_notes import show_notes
    from tunesmith.training.given import read_given

    given = read_given(recipe, overrides or ())
    show_notes(given.notes)
    loaded = given.recipe
    if dry_run:
        from tunesmith.cli.show_plan import show_plan
        from tunesmith.training.plan import dry_run as plan

        show_plan(plan(loaded))
    elif detach:
        from tunesmith.cli.show_run import show_detached
        from tunesmith.training.launch import train_detached

        show_detached(train_detached(loaded))
    else:
        from tunesmith.cli.show_run import show_end
        from tunesmith.training.train import train as train_run

        show_end(train_run(loaded))
