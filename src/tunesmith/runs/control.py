"""Ask a run in another process to stop."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tunesmith.errors import RunError
from tunesmith.runs.run import Run

SECONDS_BETWEEN_LOOKS = 0.1


def stop(run: Run, *, wait_seconds: float = 0.0) -> None:
    """Ask a run to save and stop at the end of its step; works for detached runs on any system.

    Args:
        wait_seconds: how long to wait for it to end; 0 does not wait.

    Raises:
        RunError: if it does not run, or has not ended in time.
    """
    if not run.is_locked():
        raise RunError(
            f"the run is not running, it is {run.status().state}",
            hint=f"see `tunesmith runs show {run.name}`",
            where=str(run.path),
        )
    run.stop_file.touch()
    deadline = time.monotonic() + wait_seconds
    while wait_seconds and run.is_locked():
        if time.monotonic() > deadline:
            raise RunError(
                f"the run has not stopped within {wait_seconds:.0f} s; it was asked to",
                hint=f"wait, and look at `tunesmith runs logs {run.name}`",
                where=str(run.path),
            )
        time.sleep(SECONDS_BETWEEN_LOOKS)


def read_log(run: Run, *, follow: bool = False) -> Iterator[str]:
    """Read a run's log from its beginning.

    Args:
        follow: wait for more until nobody works on the run any longer.
    """
    if not run.log_file.exists():
        return
    with run.log_file.open(encoding="utf-8", errors="replace") as file:
        while True:
            alive = follow and run.is_locked()
            yield from iter(lambda: file.read(1 << 16), "")
            if not alive:
                return
            time.sleep(SECONDS_BETWEEN_LOOKS)
