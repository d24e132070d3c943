"""One of the processes that train a run together: `workers` starts it, never a person."""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from tunesmith.errors import RunError, TunesmithError
from tunesmith.hardware import choose_device
from tunesmith.logs import hush, logger, remembering, telling, writing_log_to
from tunesmith.methods.ranks import Lost, Ranks, hearing
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_json, write_text
from tunesmith.settings import stay_on_this_machine
from tunesmith.training.prepare import prepare_run
from tunesmith.training.session import collecting_late, explain_memory
from tunesmith.training.stop import SIGNALS, StopRequest
from tunesmith.training.train import learn
from tunesmith.training.workers import LOST

log = logger(__name__)
DIE_WITH_PARENT = 1
"""PR_SET_PDEATHSIG of prctl(2)."""
PATIENCE = timedelta(days=30)
"""How long a process waits for the others; whoever started them notices who is gone."""


def main() -> None:
    """Train as told on the command line; end with the one who started us."""
    folder, rank, count = sys.argv[1:]
    hush()
    _end_with_parent()
    for number in SIGNALS:  # they go to the one who started us
        signal.signal(number, signal.SIG_IGN)
    code = work(Run(Path(folder)), Ranks(int(rank), int(count)))
    logging.shutdown()
    sys.stdout.flush()
    os._exit(code)  # nothing that still waits for another process may hold this one


def work(run: Run, ranks: Ranks) -> int:
    """Do a process's part of a training; return the code to end with."""
    try:
        _train(run, ranks)
    except Lost as problem:
        log.info("process %d: another one is gone: %s", ranks.rank, problem)
        return LOST
    except TunesmithError as problem:
        _tell(run, ranks, problem)
    except BaseException as problem:  # noqa: BLE001  nobody else would hear of it
        _tell(run, ranks, explain_memory(problem) or _crash(run, ranks, problem))
    else:
        return 0
    return 1


def _train(run: Run, ranks: Ranks) -> None:
    environment = run.environment()  # written just now by the one who started us
    recipe = Recipe.model_validate(environment["recipe"])
    with remembering(), collecting_late():  # all of it was told before
        prepared = replace(prepare_run(recipe), ranks=ranks)
    if prepared.splits.fingerprint != environment["data"]:
        raise RunError(
            "the data changed while the processes started",
            hint=f"let nobody write to the data; then `tunesmith runs resume {run.name}`",
            where=str(run.path),
        )
    with _meeting(run, recipe, ranks), _speaking(run, ranks):
        learn(run, prepared, StopRequest(run.stop_file))
        ranks.wait()


@contextmanager
def _meeting(run: Run, recipe: Recipe, ranks: Ranks) -> Iterator[None]:
    """Join the others: through gloo with what lies in main memory, through NCCL on GPUs."""
    from torch import distributed
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    stay_on_this_machine()
    on_gpu = choose_device(recipe.compute.device).type == "cuda"
    with hearing():
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            store=FileStore(str(run.meeting / "store"), ranks.count),
            rank=ranks.rank,
            world_size=ranks.count,
            timeout=PATIENCE,
        )
    yield
    distributed.destroy_process_group()


@contextmanager
def _speaking(run: Run, ranks: Ranks) -> Iterator[None]:
    """Let the first process tell what goes on; the others would say the same."""
    if not ranks.is_first:
        with remembering():
            yield
        return
    with telling(run.log_file), writing_log_to(run.log_file):
        yield


def _tell(run: Run, ranks: Ranks, problem: TunesmithError) -> None:
    """Leave a failure where whoever started us looks for it."""
    words = {"message": problem.message, "hint": problem.hint, "where": problem.where}
    write_json(run.meeting / f"failure-{ranks.rank}.json", words)


def _crash(run: Run, ranks: Ranks, problem: BaseException) -> RunError:
    kept = run.path / "crash.txt"
    write_text(kept, traceback.format_exc())
    return RunError(
        f"unexpected in process {ranks.rank}: {problem!r}; this is a bug of tunesmith",
        hint="report it with that file",
        where=str(kept),
    )


def _end_with_parent() -> None:
    """End at once when the pipe from the one who started us breaks, on Linux even sooner."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
    threading.Thread(target=_watch_pipe, daemon=True).start()


def _watch_pipe() -> None:
    while sys.stdin.buffer.read(1):
        pass
    os._exit(1)


if __name__ == "__main__":
    main()
