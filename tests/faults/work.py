"""Training in real processes that can be killed: forked from one that has imported everything."""

from __future__ import annotations

import hashlib
import io
import multiprocessing
import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import orjson

from tunesmith.runs.run import Run

PRELOAD = [
    "tunesmith.training.trainer",
    "tunesmith.training.report",
    "tunesmith.training.worker",
    "tests.faults.work",
    "peft",
]


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """Start a function in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    names = ("TUNESMITH_RUNS", "TUNESMITH_CACHE", "HF_HOME")
    environment = {name: os.environ[name] for name in names}
    process = context.Process(target=_work, args=(environment, target, arguments))
    process.start()
    return process


def _work(environment: dict[str, str], target: Callable[..., None], arguments: Any) -> None:
    os.environ.update(environment)
    target(*arguments)


def train_recipe(path: Path) -> None:
    """Train as a recipe says."""
    from tunesmith.recipe.load import load_recipe
    from tunesmith.training.train import train

    train(load_recipe(path))


def resume_run(path: Path) -> None:
    """Go on with a run."""
    from tunesmith.training.train import resume

    resume(Run(path))


class ForkedWorker:
    """One of the processes that train together, forked: it need not import everything anew."""

    started: ClassVar[list[ForkedWorker]] = []

    def __init__(self, run: Run, rank: int, processes: int, **_: Any) -> None:
        self.started.append(self)
        self.process = start(train_rank, run.path, rank, processes)
        self.stdin = io.BytesIO()
        self.poll, self.kill, self.wait = self._poll, self.process.kill, self.process.join

    def _poll(self) -> int | None:
        return self.process.exitcode


def train_rank(path: Path, rank: int, processes: int) -> None:
    """Do the part of one process."""
    from tunesmith.methods.ranks import Ranks
    from tunesmith.training.worker import work

    os._exit(work(Run(path), Ranks(rank, processes)))


def fail_in_second(path: Path, rank: int, processes: int) -> None:
    """Do the part of one process, of which the second has a bug after three steps."""
    from tunesmith.training.trainer import RunTrainer

    whole = RunTrainer.compute_loss

    def compute_loss(self: Any, *given: Any, **named: Any) -> Any:
        if rank == 1 and self.state.global_step == 3:
            raise ValueError("a slip")
        return whole(self, *given, **named)

    RunTrainer.compute_loss = compute_loss  # type: ignore[method-assign]
    train_rank(path, rank, processes)


def finish(process: BaseProcess) -> int:
    """Wait for a process; return its code."""
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode


def wait_for(true: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is true."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.002)


def the_run() -> Run | None:
    """Return the only run there is, once its directory is whole."""
    found = sorted(Path(os.environ["TUNESMITH_RUNS"]).glob("2*"))
    return Run(found[0]) if found and (found[0] / "status.json").exists() else None


def steps_done() -> int:
    """Count the updates that the only run has logged."""
    run = the_run()
    if run is None or not run.metrics_file.exists():
        return 0
    return run.metrics_file.read_bytes().count(b'"loss"')


def weights_of(run: Run) -> str:
    """Hash the trained weights of a run."""
    digest = hashlib.sha256()
    for path in sorted(run.model.glob("*.safetensors")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def losses_of(run: Run) -> list[float]:
    """List the logged losses."""
    return [record["loss"] for record in run.metrics() if "loss" in record]


def status_of(run: Run) -> dict[str, Any]:
    """Read what the run's process last wrote."""
    content: dict[str, Any] = orjson.loads(run.status_file.read_bytes())
    return content
