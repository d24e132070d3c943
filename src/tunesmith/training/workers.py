"""Start the processes that train a run together, and see them to their end."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

import orjson

from tunesmith.errors import TrainingError
from tunesmith.logs import logger
from tunesmith.runs.run import Run
from tunesmith.settings import environment_with_gpu
from tunesmith.training.stop import StopRequest

log = logger(__name__)
LOST = 75
"""How a process ends that only noticed that another one is gone."""
SECONDS_BETWEEN_LOOKS = 0.05
SECONDS_FOR_LAST_WORDS = 5.0
Worker = subprocess.Popen[bytes]


def train_together(run: Run, processes: int, stop: StopRequest, *, on_gpus: bool) -> None:
    """Let several processes train a run, and wait; whatever happens here, none of them lives on.

    This process takes no part in the training, so nothing the others wait for can keep it from
    ending them.

    Raises:
        TrainingError: with what the first of them that failed had to say.
    """
    shutil.rmtree(run.meeting, ignore_errors=True)
    run.meeting.mkdir()
    log.info("training with %d processes", processes)
    workers: list[Worker] = []
    try:
        for rank in range(processes):
            workers.append(  # noqa: PERF401  those that started are ended, also if one does not
                _start(run, rank, processes, on_gpus=on_gpus)
            )
        if not _all_go_well(run, workers, stop):
            _hear_last_words(workers)
            raise _find_failure(run, workers)
    finally:
        _end(workers)
        shutil.rmtree(run.meeting, ignore_errors=True)


def _start(run: Run, rank: int, processes: int, *, on_gpus: bool) -> Worker:
    """Start a process in a session of its own, where no key of the terminal reaches it.

    It ends when the pipe to it breaks: that is how it learns that this process is gone.
    """
    command = [sys.executable, "-m", "tunesmith.training.worker", str(run.path)]
    with run.log_file.open("ab") as log_file:
        return subprocess.Popen(  # noqa: S603
            [*command, str(rank), str(processes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL if rank else None,
            stderr=log_file if rank else None,
            env=environment_with_gpu(rank if on_gpus else None),
            start_new_session=True,
        )


def _all_go_well(run: Run, workers: Sequence[Worker], stop: StopRequest) -> bool:
    """Wait until all have ended well, or one has not; hand on a request to stop."""
    while True:
        codes = [worker.poll() for worker in workers]
        if all(code == 0 for code in codes):
            return True
        if any(code not in (None, 0) for code in codes):
            return False
        if stop.is_asked() and not run.stop_file.exists():
            run.stop_file.touch()
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _hear_last_words(workers: Sequence[Worker]) -> None:
    """Give those that still can the time to say what happened."""
    deadline = time.monotonic() + SECONDS_FOR_LAST_WORDS
    while time.monotonic() < deadline:
        if all(worker.poll() is not None for worker in workers):
            return
        if any(worker.poll() not in (None, 0, LOST) for worker in workers):
            deadline = min(deadline, time.monotonic() + 0.5)
        time.sleep(SECONDS_BETWEEN_LOOKS)


def _find_failure(run: Run, workers: Sequence[Worker]) -> TrainingError:
    """Tell once what went wrong: what a process said of it, or how one ended without a word."""
    for rank in range(len(workers)):
        words = run.meeting / f"failure-{rank}.json"
        if words.exists():
            return TrainingError(**orjson.loads(words.read_bytes()))
    ended = [(rank, worker.poll() or 0) for rank, worker in enumerate(workers)]
    silent = [each for each in ended if each[1] not in (0, LOST)]
    rank, code = (silent or [each for each in ended if each[1]])[0]
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    return TrainingError(
        f"process {rank} of {len(workers)} {how} without a word",
        hint=f"see whether memory ran out; then `tunesmith runs resume {run.name}`",
        where=str(run.log_file),
    )


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.kill()
    for worker in workers:
        worker.wait()
        assert worker.stdin is not None
        worker.stdin.close()
