"""Processes that train together end together, and lose nothing."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import psutil
import pytest

from tests import tiny
from tests.faults import work
from tunesmith.errors import TrainingError
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.control import stop
from tunesmith.runs.run import Run
from tunesmith.runs.store import delete_run
from tunesmith.training.checkpoints import list_checkpoints, verify
from tunesmith.training.train import resume, train

STEPS = 40


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this process trains itself; what `work.start` trains starts its processes for real."""
    monkeypatch.setattr("tunesmith.training.workers._start", work.ForkedWorker)
    monkeypatch.setattr(work.ForkedWorker, "started", [])


def write(tmp_path: Path, model: Path, **sections: object) -> Path:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    given: dict[str, object] = {
        "compute": {"precision": "fp32", "threads": 1, "processes": 2},
        "run": {"steps": STEPS, "save_every_steps": 5},
        "tuning": {"kind": "lora", "rank": 4, "dropout": 0.1},
        **sections,
    }
    return tiny.write_recipe(tmp_path / "r.json", model, data, **given)


def after_steps(process: BaseProcess, steps: int) -> tuple[Run, list[psutil.Process]]:
    """Wait for some steps; return the run and the processes that train it, by their ranks."""
    work.wait_for(lambda: work.steps_done() >= steps)
    run = work.the_run()
    assert run is not None
    found = psutil.Process(process.pid).children(recursive=True)
    workers = [one for one in found if "tunesmith.training.worker" in one.cmdline()]
    assert len(workers) == 2
    return run, sorted(workers, key=lambda one: one.cmdline()[-2])


def none_lives(workers: list[psutil.Process]) -> bool:
    return not any(one.is_running() and one.status() != "zombie" for one in workers)


def kill(process: BaseProcess, workers: list[psutil.Process]) -> None:
    """Kill the command, and see its processes end by themselves."""
    process.kill()
    work.finish(process)
    work.wait_for(lambda: none_lives(workers), seconds=5)


def meanwhile(steps: int, do: Callable[[Run], None]) -> threading.Thread:
    """Do something once some steps are made, while this thread trains."""

    def wait_and_do() -> None:
        work.wait_for(lambda: work.steps_done() >= steps)
        run = work.the_run()
        assert run is not None
        do(run)

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


def test_a_killed_command_leaves_no_process_and_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_model: Path
) -> None:
    recipe = write(tmp_path, tiny_model)
    process = work.start(work.train_recipe, recipe)
    run, workers = after_steps(process, 7)
    kill(process, workers)
    assert run.status().state == "interrupted"
    resume(run)
    assert run.status().state == "done"
    assert run.status().identical
    expected = train(load_recipe(recipe))
    assert work.weights_of(run) == work.weights_of(expected)
    assert work.losses_of(run) == work.losses_of(expected)


def test_a_killed_process_ends_the_run_which_can_go_on(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write(tmp_path, tiny_model)
    killer = meanwhile(7, lambda _: work.ForkedWorker.started[-1].kill())
    started = time.monotonic()
    with pytest.raises(TrainingError, match="process 1 of 2 was ended by SIGKILL") as caught:
        train(load_recipe(recipe))
    killer.join()
    run = work.the_run()
    assert run is not None
    assert f"runs resume {run.name}" in caught.value.hint
    assert (run.status().state, run.status().message) == ("failed", caught.value.message)
    assert time.monotonic() - started < 60
    assert not any(worker.process.is_alive() for worker in work.ForkedWorker.started)
    assert not run.meeting.exists()
    resume(run)
    assert run.status().state == "done"


def test_a_signal_and_a_word_stop_all_processes_and_cost_no_bit(
    tmp_path: Path, tiny_model: Path
) -> None:
    recipe = write(tmp_path, tiny_model, run={"steps": STEPS, "save_every_steps": 1000})
    signaller = meanwhile(3, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    run = train(load_recipe(recipe))
    signaller.join()
    first = run.status()
    assert first.state == "stopped"
    assert 3 <= first.step < STEPS
    (saved,) = list_checkpoints(run.checkpoints)
    assert verify(saved).problem == ""
    assert (saved / "ranks" / "1" / "rng_state.pth").exists()
    stopper = meanwhile(first.step + 3, stop)
    resume(run)
    stopper.join()
    assert run.status().state == "stopped"
    assert first.step + 3 <= run.status().step < STEPS
    resume(run)
    assert work.weights_of(run) == work.weights_of(train(load_recipe(recipe)))


@pytest.mark.proof
def test_processes_started_for_real_end_as_forked_ones_do(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write(tmp_path, tiny_model)
    process = work.start(work.train_recipe, recipe)
    run, workers = after_steps(process, 7)
    workers[1].kill()
    assert work.finish(process) == 1
    assert none_lives(workers)
    assert run.status().message == "process 1 of 2 was ended by SIGKILL without a word"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        process = work.start(work.resume_run, run.path)
        run, workers = after_steps(process, work.steps_done() + 3)
        assert process.pid is not None
        os.kill(process.pid, number)
        assert work.finish(process) == 0
        assert none_lives(workers)
        assert run.status().state == "stopped"
    assert work.finish(work.start(work.resume_run, run.path)) == 0
    assert work.weights_of(run) == work.weights_of(train(load_recipe(recipe)))


@pytest.mark.proof
def test_six_kills_of_the_command_about_when_a_checkpoint_is_written(
    tmp_path: Path, tiny_model: Path
) -> None:
    recipe = write(tmp_path, tiny_model)
    expected = train(load_recipe(recipe))
    weights = work.weights_of(expected)
    delete_run(expected)
    draw = random.Random(0)
    for number in range(6):
        process = work.start(work.train_recipe, recipe)
        run, workers = after_steps(process, 1)
        partial = run.checkpoints / ".partial" / f"checkpoint-{5 * (number + 1)}"
        work.wait_for(partial.exists)
        time.sleep(draw.uniform(0, 0.02))
        kill(process, workers)
        resume(run)
        assert run.status().state == "done"
        assert work.weights_of(run) == weights
        delete_run(run)


def test_a_failure_that_all_meet_is_told_once(tmp_path: Path, tiny_model: Path) -> None:
    explodes = {"learning_rate": 1e30, "max_grad_norm": 0, "warmup": 0, "batch_size": 4}
    recipe = write(tmp_path, tiny_model, tuning={"kind": "full"}, optimizer=explodes)
    with pytest.raises(TrainingError, match="not a number any more") as caught:
        train(load_recipe(recipe))
    assert "learning_rate" in caught.value.hint
    run = work.the_run()
    assert run is not None
    assert run.status().state == "failed"
    assert run.status().hint == caught.value.hint
    assert run.log_file.read_text("utf-8").count("not a number") == 1
    assert not run.meeting.exists()


def test_a_failure_of_one_process_alone_ends_all(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.faults.work.train_rank", work.fail_in_second)
    recipe = write(tmp_path, tiny_model)
    with pytest.raises(TrainingError, match=r"unexpected in process 1: .*a slip"):
        train(load_recipe(recipe))
    run = work.the_run()
    assert run is not None
    assert run.status().state == "failed"
    assert "a slip" in (run.path / "crash.txt").read_text("utf-8")
