"""Hold a run while working on it, and write down how the work ended."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging import LogRecord

from tunesmith.errors import RunError, TrainingError, TunesmithError
from tunesmith.logs import logger, writing_log_to
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_text
from tunesmith.training.stop import StopRequest, hear_stop

log = logger(__name__)
OUT_OF_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


@contextmanager
def working_on(run: Run, before: Iterable[LogRecord] = ()) -> Iterator[StopRequest]:
    """Take the run's lock, write its log and status, hear signals; free all of it at the end.

    What fails before `begin` leaves a finished or stopped run as it was.

    Args:
        before: what was logged before there was a run.

    Raises:
        RunError: if another process works on it.
        TrainingError: if memory ran out, naming the cause.
    """
    lock = run.take()
    try:
        run.stop_file.unlink(missing_ok=True)
        with writing_log_to(run.log_file, before), _noting(run), hear_stop(run.stop_file) as stop:
            yield stop
    finally:
        lock.release()


@contextmanager
def collecting_late() -> Iterator[None]:
    """Look for garbage seldom while the libraries load: next to nothing of them is any.

    Looking as often as usual takes a tenth of the time until the first update.
    """
    usual = gc.get_threshold()
    gc.set_threshold(100 * usual[0], *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


@contextmanager
def sparing_what_is_loaded() -> Iterator[None]:
    """Look for garbage only among what is made while the block runs."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def begin(run: Run, *, identical: bool) -> None:
    """Write down that the work has begun: from here on a failure is the run's."""
    run.write_status(state="running", message="", hint="", where="", identical=identical)


@contextmanager
def _noting(run: Run) -> Iterator[None]:
    """Write down how the work ended, if it did not end well."""
    try:
        yield
    except TunesmithError as problem:
        _note_failure(run, problem)
        raise
    except KeyboardInterrupt:
        _note(run, state="stopped", message="stopped at once, without saving")
        raise
    except BaseException as problem:
        failure = explain_memory(problem)
        if failure is None:
            _note_crash(run, problem)
            raise
        _note_failure(run, failure)
        raise failure from problem


def _note_failure(run: Run, problem: TunesmithError) -> None:
    log.error("%s (%s) %s", problem.message, problem.where, problem.hint)
    if run.status().state not in ("done", "stopped"):
        _note(run, state="failed", message=problem.message, hint=problem.hint, where=problem.where)


def _note_crash(run: Run, problem: BaseException) -> None:
    log.error("unexpected: %r", problem)
    try:
        write_text(run.path / "crash.txt", traceback.format_exc())
    except RunError as second:
        log.error("crash.txt could not be written: %s", second.message)
    _note(run, state="failed", message=f"unexpected: {problem!r}", hint="see crash.txt")


def _note(run: Run, **changes: str) -> None:
    """Write the last words of a run, in the old ones' place where the disk has no room left."""
    try:
        run.write_status(**changes)
    except RunError:
        run.overwrite_status(**changes)


def explain_memory(problem: BaseException) -> TrainingError | None:
    """Turn any library's way of saying that memory ran out into ours."""
    text = str(problem).lower()
    if not isinstance(problem, MemoryError) and not any(sign in text for sign in OUT_OF_MEMORY):
        return None
    return TrainingError(
        f"memory ran out: {str(problem).splitlines()[0] if str(problem) else 'no memory left'}",
        hint="train anew with a lower compute.tokens_per_batch (it learns the same) or "
        "data.max_tokens, or with compute.gradient_checkpointing: on",
        where="compute",
    )
