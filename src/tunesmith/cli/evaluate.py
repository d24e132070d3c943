"""`tunesmith evaluate`: a run beside its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def evaluate(
    name: Annotated[str, typer.Argument(help="A run, or a checkpoint of one.")],
    data: Annotated[
        Optional[list[Path]],
        typer.Option(help="Rows to measure on, several times if need be; else the held-out rows."),
    ] = None,
    max_rows: Annotated[Optional[int], typer.Option(min=1, help="Ask so many questions.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 256,
    show: Annotated[int, typer.Option(min=0, help="Answers to print.")] = 10,
) -> None:
    """Measure a run beside its base: held-out loss, and answers against expected ones."""
    from tunesmith.cli.show_scores import show_scores
    from tunesmith.evaluation.evaluate import evaluate as evaluate_run

    scores = evaluate_run(name, data=data or (), max_rows=max_rows, max_tokens=max_tokens)
    show_scores(scores, show=show)
