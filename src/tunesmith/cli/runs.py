"""`tunesmith runs`: what was trained, what trains now."""

from __future__ import annotations

from typing import Annotated

import typer

app = typer.Typer(
    help="List, follow, stop, resume and compare runs.", no_args_is_help=True, rich_markup_mode=None
)
Name = Annotated[str, typer.Argument(help="A run's directory, its name, or its last part.")]
ACCEPT = "Go on over changed data, base, options or versions; the run is marked."


@app.command("list")
def list_() -> None:
    """List all runs, oldest first."""
    from tunesmith.cli.tables import spell_figure, table
    from tunesmith.errors import TunesmithError
    from tunesmith.runs.compare import summary
    from tunesmith.runs.store import list_runs

    rows = []
    for run in list_runs():
        try:
            status, figures = run.status(), summary(run)
        except TunesmithError:
            rows.append([run.name, "damaged", "", "", ""])
            continue
        steps = f"{status.step:,}/{status.num_steps:,}" if status.num_steps else ""
        losses = (figures["last loss"], figures["best held-out loss"])
        rows.append([run.name, status.state, steps, *map(spell_figure, losses)])
    table(["run", "state", "steps", "loss", "best held-out"], rows)


@app.command()
def show(name: Name) -> None:
    """Show how a run stands."""
    from tunesmith.cli.show_run import spelled_summary
    from tunesmith.cli.tables import pairs
    from tunesmith.runs.store import open_run

    run = open_run(name)
    status = run.status()
    figures = spelled_summary(run)
    figures["steps"] = f"{status.step:,} of {status.num_steps:,}"
    notes = {"message": status.message, "where": status.where, "hint": status.hint}
    identical = {} if status.identical else {"identical": "no: it went on over changes"}
    pairs(
        run.name,
        {
            "state": status.state,
            **{name: value for name, value in notes.items() if value},
            **identical,
            **figures,
            "folder": run.path,
        },
    )


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until it ends.")] = False,
) -> None:
    """Print the log of a run."""
    from tunesmith.runs.control import read_log
    from tunesmith.runs.store import open_run

    for text in read_log(open_run(name), follow=follow):
        typer.echo(text, nl=False)


@app.command()
def stop(
    name: Name,
    wait: Annotated[float, typer.Option(help="Seconds to wait for it to save and end.")] = 0.0,
) -> None:
    """Ask a run to save and stop at the end of its step."""
    from tunesmith.cli.show_run import say
    from tunesmith.runs.control import stop as stop_run
    from tunesmith.runs.store import open_run

    run = open_run(name)
    stop_run(run, wait_seconds=wait)
    say(f"{run.name} stops after this step; to go on: tunesmith runs resume {run.name}")


@app.command()
def resume(
    name: Name,
    detach: Annotated[bool, typer.Option("--detach", help="Go on in the background.")] = False,
    accept_changes: Annotated[bool, typer.Option("--accept-changes", help=ACCEPT)] = False,
) -> None:
    """Go on with a run from its newest whole checkpoint."""
    from tunesmith.cli.show_run import show_detached, show_end
    from tunesmith.runs.store import open_run

    run = open_run(name)
    if detach:
        from tunesmith.training.launch import resume_detached

        resume_detached(run, accept_changes=accept_changes)
        show_detached(run)
    else:
        from tunesmith.training.train import resume as resume_run

        show_end(resume_run(run, accept_changes=accept_changes))


@app.command()
def compare(names: Annotated[list[str], typer.Argument(help="Two runs or more.")]) -> None:
    """Show side by side where runs differ and what came of them."""
    from tunesmith.cli.tables import spell_figure, table
    from tunesmith.runs.compare import compare as compare_runs
    from tunesmith.runs.store import open_run

    found = compare_runs([open_run(name) for name in names])
    options = [[name, *values] for name, values in found.options.items()]
    results = [[name, *map(spell_figure, values)] for name, values in found.results.items()]
    table(["", *found.names], [*options, *results])


@app.command()
def delete(
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Delete a run with all it holds."""
    from tunesmith.runs.store import delete_run, open_run

    run = open_run(name)
    size = sum(path.stat().st_size for path in run.path.rglob("*") if path.is_file())
    if not yes:
        typer.confirm(f"delete {run.path} ({size:,} bytes)?", abort=True)
    delete_run(run)
    typer.echo(f"deleted {run.name}, {size:,} bytes freed")
