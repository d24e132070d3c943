"""`tunesmith serve`: a model over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer


def serve(
    name: Annotated[
        str, typer.Argument(help="A run, a checkpoint, a model, or LLaMA-Factory's file.")
    ],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys that replace the file's."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    api_key_file: Annotated[
        Optional[Path], typer.Option(help="File with the key that clients must send.")
    ] = None,
) -> None:
    """Serve a model in the form that OpenAI's clients speak."""
    from tunesmith.models.given import find_given
    from tunesmith.serving.server import serve as serve_model

    given = find_given(name, overrides or ())
    serve_model(given.name, host=host, port=port, key_file=api_key_file, ready=_say_ready)


def _say_ready(model: str, address: str) -> None:
    typer.echo(f"serving {model} at {address}")
    typer.echo(f"  docs:   {address}/docs")
    typer.echo(f"  ask:    curl '{address}/generate?prompt=hello'")
    typer.echo(f"  openai: base_url={address}/v1, model={model}\nCtrl-C stops")
