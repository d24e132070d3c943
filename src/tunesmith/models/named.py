"""Runs and checkpoints by what a person calls them."""

from __future__ import annotations

import difflib
from pathlib import Path

from tunesmith.errors import ModelError
from tunesmith.models.locate import locate
from tunesmith.paths import exists, expand
from tunesmith.runs.published import find_published
from tunesmith.runs.run import Run
from tunesmith.runs.store import is_run, list_runs, open_run, short_name


def find_named_run(name: str | Path) -> tuple[Run | None, Path | None]:
    """Return the run and the folder of its weights that `name` means, if it means a run."""
    path = expand(name)
    if path.parent.name == "checkpoints" and is_run(path.parent.parent):
        return _find_checkpoint(Run(path.parent.parent.absolute()), path.name)
    if is_run(path):
        run = Run(path.absolute())
        return run, run.model
    if exists(path) or str(name) == "starter":
        published = find_published(path)
        return published, published.model if published else None
    run_name, _, checkpoint = str(name).partition("/")
    if run_name not in run_names():
        return None, None
    run = open_run(run_name)
    return _find_checkpoint(run, checkpoint) if checkpoint else (run, run.model)


def _find_checkpoint(run: Run, name: str) -> tuple[Run, Path]:
    known = checkpoints_of(run)
    if name not in known:
        raise ModelError(
            f"the run has no checkpoint {name}",
            hint=f"it has {', '.join(known)}" if known else "it has none yet",
            where=str(run.checkpoints),
        )
    return run, run.checkpoints / name


def checkpoints_of(run: Run) -> list[str]:
    """List the names of a run's checkpoints, the oldest first."""
    return sorted(path.name for path in run.checkpoints.glob("step-*") if path.is_dir())


def or_checkpoint(run: Run) -> str:
    """Propose a checkpoint, if there is one."""
    known = checkpoints_of(run)
    return f", or name its checkpoint {run.name}/{known[-1]}" if known else ""


def run_names() -> list[str]:
    """List what runs are called, by their directories and in their recipes."""
    return [name for run in list_runs() for name in (run.name, short_name(run)) if name]


def locate_or_guess(name: str | Path) -> Path:
    """Locate a model; where there is none, think of runs too."""
    try:
        return locate(name)
    except ModelError as problem:
        near = difflib.get_close_matches(str(name), run_names(), n=1)
        if exists(expand(name)) or not near:
            raise
        raise ModelError(
            problem.message, hint=f"did you mean the run {near[0]}?", where=problem.where
        ) from None
