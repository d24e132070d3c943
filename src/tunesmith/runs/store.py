"""Create, find, list and delete run directories; nobody else knows how they are named."""

from __future__ import annotations

import difflib
import shutil
import time
from pathlib import Path

from tunesmith.errors import RunError, TunesmithError
from tunesmith.paths import exists, expand
from tunesmith.recipe.load import dump_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_text
from tunesmith.settings import read_settings


def create_run(recipe: Recipe) -> Run:
    """Make a new directory for `recipe`, named by the time and `run.name`."""
    runs = read_settings().runs.absolute()
    stamp = time.strftime("%Y-%m-%d-%H%M")
    for attempt in range(1, 1000):
        suffix = "" if attempt == 1 else f"-{attempt}"
        path = runs / f"{stamp}-{recipe.run.name}{suffix}"
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as problem:
            raise RunError(
                f"the run directory cannot be made: {problem.strerror}",
                hint="choose a writable folder with TUNESMITH_RUNS",
                where=str(path),
            ) from problem
        run = Run(path)
        run.checkpoints.mkdir()
        write_text(run.recipe_file, dump_recipe(recipe))
        run.write_status(state="new")
        return run
    raise RunError("no free name for the run", hint="choose another run.name", where=str(runs))


def is_run(path: Path) -> bool:
    """Whether `path` is a run directory, however damaged."""
    whole = exists(path) and (path / "recipe.yaml").is_file()
    return whole and (path / "checkpoints").is_dir()


def open_run(name: str | Path) -> Run:
    """Find a run by its directory, its name, or the last part of its name if only one has it.

    Raises:
        RunError: with the nearest names that exist.
    """
    path = expand(name)
    if is_run(path):
        return Run(path.absolute())
    known = {run.name: run for run in list_runs()}
    if str(name) in known:
        return known[str(name)]
    matches = [run for run in known.values() if short_name(run) == str(name)]
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise RunError(
            f"{len(matches)} runs are called {name}",
            hint="write one of " + ", ".join(run.name for run in matches[:5]),
            where=str(read_settings().runs.absolute()),
        )
    near = difflib.get_close_matches(str(name), known, n=3, cutoff=0.4)
    raise RunError(
        f"there is no run {name}",
        hint=f"did you mean {', '.join(near)}?" if near else "see `tunesmith runs list`",
        where=str(read_settings().runs.absolute()),
    )


def list_runs() -> list[Run]:
    """List all runs, oldest first."""
    folder = read_settings().runs.absolute()
    if not folder.is_dir():
        return []
    paths = [path for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
    return [Run(path) for path in paths if is_run(path)]


def short_name(run: Run) -> str:
    """Read `run.name` of a run's recipe; empty if the recipe cannot be read."""
    try:
        return run.recipe().run.name
    except TunesmithError:
        return ""


def delete_run(run: Run) -> None:
    """Delete a run's directory with all it holds; refused while it runs."""
    if run.is_locked():
        raise RunError(
            "the run is running", hint=f"tunesmith runs stop {run.name}", where=str(run.path)
        )
    doomed = run.path.with_name(f".deleted-{run.name}")
    run.path.rename(doomed)
    shutil.rmtree(doomed)
