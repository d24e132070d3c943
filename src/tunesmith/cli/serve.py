"""`tunesmith serve`: a model over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from tunesmith.errors import RequestError

if TYPE_CHECKING:
    from tunesmith.models.chat import Subject
    from tunesmith.serving.serve import Doors, Ready


Name = Annotated[
    str,
    typer.Argument(
        help="A run, a checkpoint, a model, a GGUF or its folder, or LLaMA-Factory's file."
    ),
]
Others = Annotated[
    Optional[list[str]],
    typer.Argument(
        metavar="[RUN|KEY=VALUE]...",
        help="Further runs over the same base; or keys that replace the file's.",
    ),
]
Host = Annotated[str, typer.Option(help="Address to listen on.")]
Port = Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")]
Adapters = Annotated[
    Optional[list[str]],
    typer.Option(metavar="NAME=RUN", help="Another adapter over the same base; repeatable."),
]
Called = Annotated[
    str, typer.Option(help="What clients call the model; its own name if not given.")
]
Active = Annotated[
    Optional[int],
    typer.Option(min=1, max=4096, help="Answers written at a time; what suits if not given."),
]
Waiting = Annotated[
    int, typer.Option(min=0, max=10_000, help="Answers that may wait; others get 429.")
]
ToolFormat = Annotated[
    str, typer.Option(help="How the model writes calls of tools; found out if not given.")
]
KeyFile = Annotated[
    Optional[Path],
    typer.Option(help="File with a key that clients may send, besides `tunesmith keys`."),
]
Open = Annotated[bool, typer.Option("--open", help="Ask for no key, though there are some.")]
LogPrompts = Annotated[
    bool, typer.Option("--log-prompts", help="Write prompts and answers to the log.")
]
EngineName = Annotated[
    str,
    typer.Option(
        help="What writes: own, generate, llama.cpp, vllm or remote; auto takes llama.cpp for "
        "a GGUF, else our own."
    ),
]
PrecisionName = Annotated[
    Literal["auto", "fp32", "bf16"],
    typer.Option(help="Numbers to count in; of llama.cpp fp32 means its cache."),
]
RemoteUrl = Annotated[
    str, typer.Option(help="With --engine remote: where the server's paths begin.")
]
RemoteKey = Annotated[
    Optional[Path], typer.Option(help="With --engine remote: file with the key it asks for.")
]
PrintClient = Annotated[
    str, typer.Option(metavar="KIND", help="Print a client instead: curl, python, spring.")
]


def serve(
    name: Name,
    others: Others = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    adapter: Adapters = None,
    served_model_name: Called = "",
    max_active: Active = None,
    max_waiting: Waiting = 32,
    tool_format: ToolFormat = "",
    api_key_file: KeyFile = None,
    is_open: Open = False,
    log_prompts: LogPrompts = False,
    engine: EngineName = "auto",
    precision: PrecisionName = "auto",
    remote_url: RemoteUrl = "",
    remote_key_file: RemoteKey = None,
    print_client: PrintClient = "",
) -> None:
    """Serve a model in the form that OpenAI's clients speak."""
    from tunesmith.cli.show_notes import show_notes
    from tunesmith.models.given import find_given
    from tunesmith.paths import last_part
    from tunesmith.serving.answers import Answering
    from tunesmith.serving.serve import Address, Doors
    from tunesmith.serving.serve import serve as serve_model
    from tunesmith.serving.usual import Usual
    from tunesmith.settings import take_large_pages

    take_large_pages()
    given = find_given(name, [one for one in others or () if "=" in one], "serve")
    doors = Doors(Address(host, port), api_key_file, is_open, log_prompts)
    if print_client:
        found = _name_of(given.name, engine)
        _print_client(print_client, served_model_name or found, doors)
        return
    show_notes(given.use.notes if given.use else {})
    beside = [f"{last_part(one)}={one}" for one in others or () if "=" not in one]
    how = Answering(
        served_model_name,
        _read_adapters([*beside, *(adapter or ())]),
        max_active,
        max_waiting,
        tool_format,
        engine=engine,
        precision=precision,
        url=remote_url,
        key_file=remote_key_file,
        usual=Usual(given.use.sampling, given.use.system) if given.use else Usual(),
    )
    serve_model(given.name, how, doors, ready=_say_ready, ends=True)


def _read_adapters(given: Sequence[str]) -> dict[str, str]:
    adapters: dict[str, str] = {}
    for one in given:
        name, equals, run = one.partition("=")
        if not (name and equals and run) or name in adapters:
            raise RequestError(
                f"{one!r} names no other adapter",
                hint="write --adapter NAME=RUN, each with a name of its own",
                where="--adapter",
            )
        adapters[name] = run
    return adapters


def _name_of(name: str | Subject, engine: str) -> str:
    """Say what clients call a model; no weights are loaded for it."""
    from tunesmith.inference.choose import which_engine
    from tunesmith.models.chat import find_subject
    from tunesmith.models.gguf_file import find_gguf, name_of_gguf
    from tunesmith.paths import last_part
    from tunesmith.serving.answers import SCORE, address_of

    chosen = which_engine(name, engine)
    if isinstance(name, str) and chosen == "remote":
        return last_part(name)
    file = find_gguf(name) if isinstance(name, str) else None
    if file is not None:
        return last_part(name_of_gguf(file))
    subject = find_subject(name)
    only = address_of(subject)
    if only and (chosen == "own" or (only == SCORE and chosen != "vllm")):
        raise RequestError(
            f"the model writes no answers, and these clients ask for one; it is asked at {only}",
            hint=f"send your texts with POST to {only}; /docs of the server shows the fields",
            where="--print-client",
        )
    return last_part(subject.name)


def _print_client(kind: str, called: str, doors: Doors) -> None:
    """Print a client."""
    from tunesmith.serving.client import write_client
    from tunesmith.serving.serve import find_access

    text = write_client(
        kind,
        host=doors.address.host,
        port=doors.address.port,
        model=called,
        asks_for_key=find_access(doors).keys is not None,
    )
    typer.echo(text, nl=False)


def _say_ready(ready: Ready) -> None:
    typer.echo(f"serving {ready.models[0]} at {ready.address}")
    for name in ready.models[1:]:
        typer.echo(f"  also:   {name}")
    typer.echo(f"  docs:   {ready.address}/docs")
    if ready.only:
        typer.echo(f"  ask:    POST {ready.address}{ready.only}")
    else:
        typer.echo(f"  ask:    curl '{ready.address}/generate?prompt=hello'")
        typer.echo(f"  openai: base_url={ready.address}/v1, model={ready.models[0]}")
    typer.echo(f"  key:    {'needed' if ready.asks_for_key else 'none'}\nCtrl-C stops")
