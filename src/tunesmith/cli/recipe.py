"""`tunesmith recipe`: write, check and explain recipes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(
    help="Write, check and explain recipes.", no_args_is_help=True, rich_markup_mode=None
)


@app.command()
def new(
    file: Annotated[Path, typer.Argument(help="The recipe to write.")] = Path("recipe.yaml"),
    model: Annotated[Optional[str], typer.Option(help="Model to start from.")] = None,
    data: Annotated[Optional[str], typer.Option(help="File or folder to learn from.")] = None,
    method: Annotated[
        Optional[str],
        typer.Option(help="Such as sft, pretrain or dpo; `recipe explain method` lists them."),
    ] = None,
    tuning: Annotated[Optional[str], typer.Option(help="lora, full, freeze and others.")] = None,
    name: Annotated[Optional[str], typer.Option(help="What to call the run.")] = None,
    rewards: Annotated[
        Optional[str], typer.Option(help="Of grpo and ppo: what answers are worth.")
    ] = None,
    teacher: Annotated[
        Optional[str], typer.Option(help="Of distill: the model to learn from.")
    ] = None,
) -> None:
    """Ask a few questions and write a recipe with a comment on every option."""
    from tunesmith.recipe.new import NEEDED, QUESTIONS, write_new

    given = {"model": model, "data": data, "method": method, "tuning": tuning, "name": name}
    given |= {"rewards": rewards, "teacher": teacher}
    answers = {name: answer for name, answer in given.items() if answer}
    for question in QUESTIONS:
        if question.name not in answers:
            answers[question.name] = typer.prompt(question.text, default=question.default)
    needed = NEEDED.get(answers["method"])
    if needed is not None and needed.name not in answers:
        answers[needed.name] = typer.prompt(needed.text, default=needed.default)
    write_new(file, answers)
    typer.echo(f"wrote {file}\nlook first: tunesmith train {file} --dry-run")
    typer.echo(f"then train: tunesmith train {file}")


@app.command()
def check(
    file: Annotated[Path, typer.Argument(help="A recipe.")],
    overrides: Annotated[
        Optional[list[str]], typer.Argument(metavar="[SECTION.OPTION=VALUE]...")
    ] = None,
) -> None:
    """Say whether a recipe can be run, without looking at its data or model."""
    from tunesmith.recipe.rules import check_rules
    from tunesmith.training.given import read_given

    check_rules(read_given(file, overrides or ()).recipe)
    typer.echo(f"{file}: no mistake found")


@app.command()
def convert(
    file: Annotated[Path, typer.Argument(help="A training file of LLaMA-Factory.")],
    overrides: Annotated[Optional[list[str]], typer.Argument(metavar="[KEY=VALUE]...")] = None,
) -> None:
    """Print the recipe that a LLaMA-Factory file becomes, and what is not taken over."""
    from tunesmith.models.around import look_around
    from tunesmith.recipe.llamafactory.convert import convert as convert_file
    from tunesmith.recipe.llamafactory.file import read_file
    from tunesmith.recipe.llamafactory.spell import spell_converted
    from tunesmith.recipe.rules import check_rules

    converted = convert_file(read_file(file, overrides or ()), look_around())
    check_rules(converted.recipe)
    typer.echo(spell_converted(converted, str(file)), nl=False)


@app.command()
def explain(
    name: Annotated[
        Optional[str], typer.Argument(help="A section, a kind or an option; all if not given.")
    ] = None,
) -> None:
    """Print what options there are, their defaults and what they do."""
    from tunesmith.cli.show_options import show_options
    from tunesmith.recipe.schema import find_options

    show_options(find_options(name))


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for editors."""
    from tunesmith.recipe.schema import json_schema

    typer.echo(json.dumps(json_schema(), ensure_ascii=False, indent=2))
