"""`tunesmith keys`: who may ask a server."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="Make, list and take back the keys of servers.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
Name = Annotated[str, typer.Argument(help="What the key is called.")]
SCOPES = "chat,embed,score"


@app.command()
def create(
    name: Name,
    scope: Annotated[
        str, typer.Option(help="What it is for, of: chat, embed, score, metrics, admin.")
    ] = SCOPES,
) -> None:
    """Make a key and show it, this once only."""
    from tunesmith.serving.keys import KeyStore
    from tunesmith.settings import read_settings

    store = KeyStore(read_settings().config)
    key = store.create(name, [part.strip() for part in scope.split(",")])
    typer.echo(key)
    typer.echo(f"kept as a hash in {store.path}; this is the only time it is shown", err=True)


@app.command("list")
def list_() -> None:
    """List the keys by name; none can be shown again."""
    from tunesmith.cli.tables import table
    from tunesmith.serving.keys import KeyStore
    from tunesmith.settings import read_settings

    keys = KeyStore(read_settings().config).read()
    table(["key", "for", "made"], [[key.name, ", ".join(key.scopes), key.created] for key in keys])


@app.command()
def revoke(name: Name) -> None:
    """Take a key back; running servers refuse it at once."""
    from tunesmith.serving.keys import KeyStore
    from tunesmith.settings import read_settings

    KeyStore(read_settings().config).revoke(name)
    typer.echo(f"{name} opens nothing any longer")
