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
    from tunesmith.cli.tables import pairs
    from tunesmith.export.export import export as export_run

    exported = export_run(name, to, precision=precision)
    distance = exported.distance
    ties = f", {exported.near_ties} near ties" if exported.near_ties else ""
    pairs(
        f"exported to {exported.folder}",
        {
            "weights": f"{exported.precision}, {exported.num_bytes:,} bytes",
            "same answers": f"{exported.num_probes} prompts of the run, in fp32{ties}",
            f"in {exported.precision}": f"KL {distance.kl:.2e} nats a token, same choice for "
            f"{distance.top1:.1%} of {distance.num_tokens} tokens",
            "serve": f"tunesmith serve {exported.folder}",
        },
    )
