"""`tunesmith data`: look at rows before they are learned."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

app = typer.Typer(
    help="Check data files and show their tokens.", no_args_is_help=True, rich_markup_mode=None
)
File = Annotated[Path, typer.Argument(help="A data file, a folder of them, or a recipe.")]
Model = Annotated[str, typer.Option(help="Whose tokenizer and chat template to use.")]
Template = Annotated[
    Optional[str], typer.Option(help="A chat template, for models that ship none.")
]
MAX_TOKENS = "Length over which a row counts as too long."


@app.command()
def check(
    file: File,
    validation: Annotated[
        Optional[Path], typer.Option(help="Rows to measure on; none may be learned.")
    ] = None,
    model: Model = "starter",
    template: Template = None,
    max_tokens: Annotated[int, typer.Option(help=MAX_TOKENS)] = 1024,
    encoding: Annotated[str, typer.Option(help="Text encoding of the file.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Report kind, counts, lengths, bad rows, repetitions and contradictions."""
    from tunesmith.cli.show_check import show_check
    from tunesmith.data.check import check as check_data
    from tunesmith.data.sources import describe_data
    from tunesmith.models.reader import find_reader

    data = describe_data(file, validation, max_tokens=max_tokens, encoding=encoding)
    reader = find_reader(model, template)
    report = check_data(data, reader.tokenizer, reader.template)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        show_check(report)


@app.command()
def show(
    file: File,
    row: Annotated[int, typer.Option(help="Number of the row, from 1.")] = 1,
    model: Model = "starter",
    template: Template = None,
    method: Annotated[
        Literal["sft", "pretrain"], typer.Option(help="Which method would learn it.")
    ] = "sft",
    max_tokens: Annotated[int, typer.Option(help=MAX_TOKENS)] = 1024,
    encoding: Annotated[str, typer.Option(help="Text encoding of the file.")] = "auto",
) -> None:
    """Print the exact tokens of a row, the learned ones coloured."""
    from tunesmith.data.show import render
    from tunesmith.data.show import show as show_row
    from tunesmith.data.sources import describe_data
    from tunesmith.logs import console
    from tunesmith.methods import build_method
    from tunesmith.models.reader import find_reader
    from tunesmith.recipe.method import SFT, Pretrain

    options = SFT() if method == "sft" else Pretrain()
    data = describe_data(file, None, max_tokens=max_tokens, encoding=encoding)
    reader = find_reader(model, template)
    shown = show_row(data, row, reader.tokenizer, reader.template, build_method(options).learn)
    console.print(render(shown, marks=not console.is_terminal), soft_wrap=True)
