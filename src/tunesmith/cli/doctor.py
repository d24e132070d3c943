"""`tunesmith doctor`: what this machine and this installation can do."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Look at machine and packages, and try every precision and quantization on a tiny model."""
    from tunesmith.cli.show_doctor import show_examination
    from tunesmith.doctor.examine import examine

    if not show_examination(examine(), as_json=as_json):
        raise typer.Exit(1)
