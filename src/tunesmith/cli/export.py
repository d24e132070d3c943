"""`tunesmith export`: from a run to a model that others load."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer


def export(
    name: Annotated[str, typer.Argument(help="A run, or a checkpoint of one.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to make.")],
    precision: Annotated[
        Literal["auto", "fp32", "bf16", "fp16"],
        typer.Option(help="How weights are stored; auto stores them as the base does."),
    ] = "auto",
) -> None:
    """Write a run as one model folder, after proving that it answers the same."""
    from tunesmith.cli.show_export import show_exported
    from tunesmith.export.export import export as export_run

    show_exported(export_run(name, to, precision=precision))
