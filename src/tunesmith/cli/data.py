"""`tunesmith data`: look at rows before they are learned."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

app = typer.Typer(
    help="Check data files and show their tokens.", no_args_is_help=True, rich_markup_mode=None
)
File = Annotated[str, typer.Argument(help="A data file, a folder of them, or a recipe.")]
Model = Annotated[
    Optional[str],
    typer.Option(help="Whose tokenizer and chat template to use; the starter's if not given."),
]
Template = Annotated[
    Optional[str], typer.Option(help="A chat template, for models that ship none.")
]
MaxTokens = Annotated[
    Optional[int],
    typer.Option(min=1, help="Length over which a row is too long; 1024 if not given."),
]
Encoding = Annotated[
    Optional[str],
    typer.Option(help="Text encoding of the file; found out if not given."),
]


@app.command()
def check(
    file: File,
    validation: Annotated[
        Optional[str],
        typer.Option(metavar="<path>", help="Rows to measure on; none may be learned."),
    ] = None,
    model: Model = None,
    template: Template = None,
    max_tokens: MaxTokens = None,
    encoding: Encoding = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Report kind, counts, lengths, bad rows, repetitions and contradictions."""
    from tunesmith.cli.show_check import show_check
    from tunesmith.data.check import check as check_data
    from tunesmith.data.describe import describe, is_recipe
    from tunesmith.methods import build_method
    from tunesmith.methods.classify import learn_of
    from tunesmith.models.reader import find_any_reader

    given = {"validation": validation, "model": model, "template": template}
    recipe = describe(file, {**given, "max_tokens": max_tokens, "encoding": encoding})
    reader = find_any_reader(recipe.model.name, recipe.model.template)
    learn = learn_of(build_method(recipe.method), reader) if is_recipe(file) else None
    report = check_data(recipe.data, reader.tokenizer, reader.template, learn)
    if as_json:
        import orjson

        typer.echo(orjson.dumps(report.to_dict(), option=orjson.OPT_INDENT_2).decode())
    else:
        show_check(report)


@app.command()
def show(
    file: File,
    row: Annotated[int, typer.Option(min=1, help="Number of the row, from 1.")] = 1,
    model: Model = None,
    template: Template = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="Which method would learn it; sft if not given."),
    ] = None,
    max_tokens: MaxTokens = None,
    encoding: Encoding = None,
) -> None:
    """Print the exact tokens of a row, the learned ones coloured."""
    from tunesmith.data.describe import describe
    from tunesmith.data.show import render
    from tunesmith.data.show import show as show_row
    from tunesmith.logs import console
    from tunesmith.methods import build_method
    from tunesmith.methods.classify import learn_of
    from tunesmith.models.reader import find_any_reader

    given = {"model": model, "template": template, "method": method}
    recipe = describe(file, {**given, "max_tokens": max_tokens, "encoding": encoding})
    reader = find_any_reader(recipe.model.name, recipe.model.template)
    learn = learn_of(build_method(recipe.method), reader)
    shown = show_row(recipe.data, row, reader.tokenizer, reader.template, learn)
    console.print(render(shown, marks=not console.is_terminal), soft_wrap=True)
