"""One run directory: where each file lies and how it is read."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson
from filelock import FileLock, Timeout

from tunesmith.errors import RunError
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.runs.write import disk_error, write_bytes, write_json

SECONDS_TO_TAKE = 0.5
"""Whoever only looks whether a run is locked holds its lock for a moment."""
State = Literal["new", "running", "done", "stopped", "failed", "interrupted"]


@dataclass(frozen=True)
class Status:
    """What a run is doing, as its own process last wrote it.

    Attributes:
        state: `interrupted` is never written: it is a run that says it runs while nobody holds
            its lock (killed, or the power failed).
        step: updates made.
        num_steps: updates planned, 0 while unknown.
        message: why it stopped or failed, for a person.
        identical: False once the run went on over changed data, options or versions.
        updated: seconds since the epoch.
    """

    state: State = "new"
    step: int = 0
    num_steps: int = 0
    pid: int = 0
    message: str = ""
    hint: str = ""
    where: str = ""
    identical: bool = True
    updated: float = 0.0


@dataclass(frozen=True)
class Run:
    """A run directory. Holds no state: every call reads the disk."""

    path: Path

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.name

    @property
    def recipe_file(self) -> Path:
        """The recipe with all defaults written out."""
        return self.path / "recipe.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, threads, and hashes of data and base."""
        return self.path / "environment.json"

    @property
    def status_file(self) -> Path:
        """What the run is doing."""
        return self.path / "status.json"

    @property
    def metrics_file(self) -> Path:
        """One JSON object a logged step."""
        return self.path / "metrics.jsonl"

    @property
    def log_file(self) -> Path:
        """Messages of the run."""
        return self.path / "log.txt"

    @property
    def checkpoints(self) -> Path:
        """Folder of sealed checkpoints."""
        return self.path / "checkpoints"

    @property
    def beginning_file(self) -> Path:
        """What the adapter began with, where the run's own rows chose it."""
        return self.path / "beginning.safetensors"

    @property
    def model(self) -> Path:
        """The trained weights: an adapter, or a whole model."""
        return self.path / "model"

    @property
    def scores_file(self) -> Path:
        """What `tunesmith evaluate` measured."""
        return self.path / "scores.json"

    @property
    def samples_file(self) -> Path:
        """Sample answers before and after training."""
        return self.path / "samples.jsonl"

    @property
    def probes_file(self) -> Path:
        """Prompts of the run's own rows, on which an export is compared with the tuned model."""
        return self.path / "probes.json"

    @property
    def report_file(self) -> Path:
        """The report for people."""
        return self.path / "report.html"

    @property
    def data_file(self) -> Path:
        """Counts of the rows the run learned from."""
        return self.path / "data.json"

    @property
    def exported(self) -> Path:
        """Where the demo exports to; elsewhere the user names the folder."""
        return self.path / "exported"

    @property
    def curves_file(self) -> Path:
        """The loss as a picture."""
        return self.path / "loss.png"

    @property
    def meeting(self) -> Path:
        """Where the processes that train this run find each other, while they do."""
        return self.path / ".processes"

    @property
    def stop_file(self) -> Path:
        """Exists while somebody asks the run to stop; works where signals do not."""
        return self.path / "stop"

    def recipe(self) -> Recipe:
        """Read the recipe this run was started with."""
        return load_recipe(self.recipe_file)

    def status(self) -> Status:
        """Read the status, seeing through a process that died without a word."""
        status = self._written_status()
        if status.state == "running" and not self.is_locked():
            return replace(
                status,
                state="interrupted",
                message="the process ended without a word: killed, or the power failed",
                hint=f"tunesmith runs resume {self.name}",
            )
        return status

    def _written_status(self) -> Status:
        try:
            return Status(**orjson.loads(self.status_file.read_bytes()))
        except FileNotFoundError:
            return Status()
        except (orjson.JSONDecodeError, TypeError) as problem:
            raise RunError(
                f"the status cannot be read: {problem}",
                hint=f"delete the file; then `tunesmith runs resume {self.name}`",
                where=str(self.status_file),
            ) from None

    def write_status(self, **changes: Any) -> None:
        """Change some fields of the status."""
        status = replace(self._written_status(), **changes, updated=time.time())
        write_json(self.status_file, asdict(status))

    def overwrite_status(self, **changes: Any) -> None:
        """Change the status in place, which needs no room: for a disk that is full to the brim."""
        status = replace(self._written_status(), **changes, updated=time.time())
        with self.status_file.open("r+b") as file:
            file.write(orjson.dumps(asdict(status)))
            file.truncate()

    def metrics(self) -> list[dict[str, Any]]:
        """Read all logged steps, oldest first, up to a line that a kill or the power damaged."""
        if not self.metrics_file.exists():
            return []
        records: list[dict[str, Any]] = []
        for line in self.metrics_file.read_bytes().split(b"\n")[:-1]:
            try:
                records.append(orjson.loads(line))
            except orjson.JSONDecodeError:
                break
        return records

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Append one logged step."""
        line = orjson.dumps(record) + b"\n"
        try:
            with self.metrics_file.open("ab") as file:
                file.write(line)
        except OSError as problem:
            raise disk_error(problem, self.metrics_file, len(line)) from problem

    def keep_metrics_until(self, step: int) -> None:
        """Drop what was logged after `step`: a resume from there logs it again, the same."""
        kept = [record for record in self.metrics() if record["step"] <= step]
        write_bytes(self.metrics_file, b"".join(orjson.dumps(record) + b"\n" for record in kept))

    def environment(self) -> dict[str, Any]:
        """Read what the run was made on; empty before it started."""
        if not self.environment_file.exists():
            return {}
        content: dict[str, Any] = orjson.loads(self.environment_file.read_bytes())
        return content

    def lock(self) -> FileLock:
        """Return the lock that the one process working on this run holds."""
        return FileLock(self.path / ".lock")

    def is_locked(self) -> bool:
        """Whether a live process works on this run."""
        try:
            with self.lock().acquire(timeout=0):
                return False
        except Timeout:
            return True

    def take(self) -> FileLock:
        """Take the run for this process; the system frees it however the process ends.

        Raises:
            RunError: naming the process that has it.
        """
        lock = self.lock()
        try:
            lock.acquire(timeout=SECONDS_TO_TAKE)
        except Timeout:
            raise self.busy() from None
        self.write_status(pid=os.getpid())
        return lock

    def busy(self) -> RunError:
        """Name the process that works on this run."""
        return RunError(
            f"another process ({self._written_status().pid}) works on this run",
            hint=f"wait for it, or `tunesmith runs stop {self.name}`",
            where=str(self.path),
        )
