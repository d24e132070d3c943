"""`tunesmith chat`: talk to a model in the terminal."""

from __future__ import annotations

from typing import Annotated, Optional

import typer


def chat(
    name: Annotated[
        str,
        typer.Argument(
            help="A run, a checkpoint of one, a model, a GGUF or its folder, or LLaMA-Factory's "
            "file."
        ),
    ],
    overrides: Annotated[
        Optional[list[str]],
        typer.Argument(metavar="[KEY=VALUE]...", help="Keys that replace the file's."),
    ] = None,
    compare: Annotated[
        Optional[str],
        typer.Option(help="Let this model answer too; `base` is the one the run started from."),
    ] = None,
    system: Annotated[Optional[str], typer.Option(help="System prompt.")] = None,
    temperature: Annotated[
        Optional[float], typer.Option(help="0 is always the same; the model's own if not given.")
    ] = None,
    top_p: Annotated[Optional[float], typer.Option(help="Draw from the likeliest share.")] = None,
    top_k: Annotated[Optional[int], typer.Option(help="Draw from so many tokens.")] = None,
    max_tokens: Annotated[
        Optional[int], typer.Option(help="Longest answer; 256 if not given.")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Makes draws repeatable.")] = None,
) -> None:
    """Talk to a model: /clear forgets, /save FILE keeps, /image FILE and /video FILE show."""
    from tunesmith.cli.show_notes import find_noted
    from tunesmith.cli.talk import talk
    from tunesmith.inference.load import open_sessions
    from tunesmith.settings import take_large_pages

    take_large_pages()
    given = find_noted(name, overrides, "chat")
    sampling = given.use.sampling if given.use else {"max_tokens": 256}
    asked = {
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "seed": seed,
        "max_tokens": max_tokens,
    }
    chosen = {name: value for name, value in asked.items() if value is not None}
    if system is None:
        system = given.use.system if given.use else ""
    sampling = {**sampling, **chosen}
    sessions = open_sessions(given.name, beside=compare, system=system, sampling=sampling)
    try:
        talk(sessions)
    finally:
        for session in sessions:
            session.close()
