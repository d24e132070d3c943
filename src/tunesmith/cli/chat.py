"""`tunesmith chat`: talk to a model in the terminal."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def chat(
    name: Annotated[str, typer.Argument(help="A run, a checkpoint of one, or a model.")],
    compare: Annotated[
        Optional[str],
        typer.Option(help="Let this model answer too; `base` is the one the run started from."),
    ] = None,
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    temperature: Annotated[
        Optional[float], typer.Option(help="0 is always the same; the model's own if not given.")
    ] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Draw from the likeliest share.")] = None,
    top_k: Annotated[Optional[int], typer.Option(help="Draw from so many tokens.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer.")] = 256,
    seed: Annotated[Optional[int], typer.Option(help="Makes draws repeatable.")] = None,
) -> None:
    """Talk to a model: /clear forgets, /save FILE keeps, /system TEXT, /quit."""
    from tunesmith.cli.talk import talk
    from tunesmith.inference.load import open_sessions

    chosen = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "seed": seed}
    talk(
        open_sessions(
            name, beside=compare, system=system, sampling={**chosen, "max_tokens": max_tokens}
        )
    )
