"""Start a run in a session of its own, so that it outlives the terminal."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tunesmith.errors import RunError
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run
from tunesmith.training.environment import check_unchanged, describe_environment
from tunesmith.training.fit import fit, fit_once
from tunesmith.training.prepare import prepare_run

SECONDS_TO_START = 60.0


def train_detached(recipe: Recipe) -> Run:
    """Check and tokenize here, where mistakes are seen, then train in another process."""
    prepared = fit(prepare_run(recipe))
    run = create_run(prepared.recipe)
    start_detached(run)
    return run


def resume_detached(run: Run, *, accept_changes: bool = False) -> int:
    """Check here what a resume would refuse, then go on in another process; return its pid.

    Raises:
        RunError: if another process works on it, or something changed and that is not accepted.
    """
    if run.is_locked():
        raise run.busy()
    prepared = fit_once(prepare_run(run.recipe()))
    now = describe_environment(prepared.recipe, prepared.reader, prepared.splits)
    check_unchanged(run, now, accept=accept_changes)
    return start_detached(run, accept_changes=accept_changes)


def start_detached(run: Run, *, accept_changes: bool = False) -> int:
    """Go on with a run in a process that survives this one; return its pid.

    Raises:
        RunError: if that process ends before it has taken the run, or does not take it in time.
    """
    command = [sys.executable, "-m", "tunesmith", "runs", "resume", str(run.path)]
    if accept_changes:
        command.append("--accept-changes")
    run.log_file.touch()
    with run.log_file.open("ab") as log:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=os.name != "nt",
            close_fds=True,
        )
    deadline = time.monotonic() + SECONDS_TO_START
    while run.status().pid != process.pid:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RunError(
                "the detached process has not taken the run"
                if process.returncode is None
                else f"the detached process ended at once with code {process.returncode}",
                hint="its messages stand in the log",
                where=str(run.log_file),
            )
        time.sleep(0.1)
    process.returncode = 0  # nobody waits for it: it is to outlive us
    return process.pid
