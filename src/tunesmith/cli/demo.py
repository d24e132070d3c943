"""`tunesmith demo`: the whole way on what ships in the package."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def demo(
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[SECTION.OPTION=VALUE]...", help="Options of the demo's recipe."),
    ] = None,
) -> None:
    """Train, measure, export, serve and ask, with nothing downloaded."""
    from tunesmith.cli.show_demo import show_next, show_steps
    from tunesmith.demo.demo import run_demo

    show_next(run_demo(show_steps(), overrides or ()))
