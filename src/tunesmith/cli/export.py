"""`tunesmith export`: from a run to a model that others load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

from tunesmith.errors import ExportError


def export(
    name: Annotated[
        str, typer.Argument(help="A run, a checkpoint of one, or LLaMA-Factory's file.")
    ],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys that replace the file's."),
    ] = None,
    to: Annotated[
        Optional[Path], typer.Option("--to", help="The folder to make; a file may name it.")
    ] = None,
    precision: Annotated[
        Optional[Literal["auto", "fp32", "bf16", "fp16"]],
        typer.Option(help="How weights are stored; auto, the default, does as the base."),
    ] = None,
) -> None:
    """Write a run as one model folder, after proving that it answers the same."""
    from tunesmith.cli.show_export import show_exported
    from tunesmith.export.export import export as export_run
    from tunesmith.models.given import find_given

    given = find_given(name, overrides or (), to_export=to is None)
    folder = to or (given.use.to if given.use else None)
    if folder is None:
        raise ExportError(
            "no folder is named to export to", hint="write --to FOLDER", where="command line"
        )
    stored = precision or (given.use.precision if given.use else "auto")
    show_exported(export_run(given.name, folder, precision=stored))
