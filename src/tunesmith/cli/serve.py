"""`tunesmith serve`: models over HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

if TYPE_CHECKING:
    from tunesmith.serving.serve import Ready


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
        Optional[Path],
        typer.Option(help="File with a key that clients may send, besides `tunesmith keys`."),
    ] = None,
    is_open: Annotated[
        bool, typer.Option("--open", help="Ask for no key, though there are some.")
    ] = False,
    served_model_name: Annotated[
        str, typer.Option(help="What clients call the model; its own name if not given.")
    ] = "",
    max_waiting: Annotated[
        int, typer.Option(min=0, max=10_000, help="Requests that may wait; others get 429.")
    ] = 32,
    log_prompts: Annotated[
        bool, typer.Option("--log-prompts", help="Write prompts and answers to the log.")
    ] = False,
) -> None:
    """Serve a model in the form that OpenAI's clients speak."""
    from tunesmith.models.given import find_given
    from tunesmith.serving.serve import Address, Serving
    from tunesmith.serving.serve import serve as serve_model

    given = find_given(name, overrides or ())
    how = Serving(
        Address(host, port), api_key_file, is_open, served_model_name, max_waiting, log_prompts
    )
    serve_model(given.name, how, ready=_say_ready)


def _say_ready(ready: Ready) -> None:
    typer.echo(f"serving {ready.models[0]} at {ready.address}")
    for name in ready.models[1:]:
        typer.echo(f"  also:   {name}")
    typer.echo(f"  docs:   {ready.address}/docs")
    typer.echo(f"  ask:    curl '{ready.address}/generate?prompt=hello'")
    typer.echo(f"  openai: base_url={ready.address}/v1, model={ready.models[0]}")
    typer.echo("  key:    needed" if ready.asks_for_key else "  key:    none")
    typer.echo("Ctrl-C stops")
