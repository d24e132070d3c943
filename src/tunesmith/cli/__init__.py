"""The command line: one file a verb, which parses, calls one function and prints."""

from __future__ import annotations

import os
import sys

import typer

from tunesmith import __version__
from tunesmith.cli import (
    chat,
    classify,
    data,
    demo,
    doctor,
    evaluate,
    export,
    keys,
    recipe,
    runs,
    serve,
    train,
)
from tunesmith.cli.failure import show_crash, show_error, show_usage
from tunesmith.errors import TunesmithError
from tunesmith.logs import hush

app = typer.Typer(
    name="tunesmith",
    help="From a company's questions and answers to a language model it runs itself.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command("demo")(demo.demo)
app.command("doctor")(doctor.doctor)
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("chat")(chat.chat)
app.command("classify")(classify.classify)
app.command("export")(export.export)
app.command("serve")(serve.serve)
app.add_typer(keys.app, name="keys")
app.add_typer(runs.app, name="runs")
app.add_typer(data.app, name="data")
app.add_typer(recipe.app, name="recipe")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"tunesmith {__version__}")
        raise typer.Exit


@app.callback()
def root(
    debug: bool = typer.Option(False, help="Show where in the code an error arose."),
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Show the version."
    ),
) -> None:
    """From a company's questions and answers to a language model it runs itself."""


def main() -> None:
    """Run the command line; every error a person can mend ends in three lines and code 2."""
    arguments = sys.argv[1:]
    hush()
    try:
        code = app(arguments, standalone_mode=False)
    except TunesmithError as problem:
        code = show_error(problem, debug="--debug" in arguments)
    except typer.TyperException as problem:
        code = show_usage(problem)
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except Exception as problem:  # noqa: BLE001  our bug: say so, keep what helps to mend it
        code = show_crash(problem, debug="--debug" in arguments)
    sys.exit(code if isinstance(code, int) else 0)
