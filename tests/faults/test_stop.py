"""Stops, numbers that are none, full disks and too little memory end a run in words."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.faults import work
from tunesmith.errors import RunError, TrainingError
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import delete_run
from tunesmith.training.checkpoints import list_checkpoints, verify
from tunesmith.training.train import train
from tunesmith.training.trainer import RunTrainer


def write(tmp_path: Path, model: Path, steps: int = 60, **sections: object) -> Path:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    times = {"steps": steps, "save_every_steps": 1000}
    return tiny.write_recipe(tmp_path / "r.json", model, data, **{"run": times, **sections})


def stop_with(recipe: Path, number: int, after: int) -> Run:
    process = work.start(work.train_recipe, recipe)
    work.wait_for(lambda: work.steps_done() >= after)
    assert process.pid is not None
    os.kill(process.pid, number)
    started = time.monotonic()
    assert work.finish(process) == 0
    assert time.monotonic() - started < 10
    run = work.the_run()
    assert run is not None
    return run


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_saves_stops_and_the_run_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, number: signal.Signals
) -> None:
    recipe = write(tmp_path, tiny_model)
    assert work.finish(work.start(work.train_recipe, recipe)) == 0
    undisturbed = work.the_run()
    assert undisturbed is not None
    expected = work.weights_of(undisturbed)
    delete_run(undisturbed)
    run = stop_with(recipe, number, after=5)
    status = run.status()
    assert status.state == "stopped"
    assert status.step < 60
    assert "runs resume" in status.hint
    (saved,) = list_checkpoints(run.checkpoints)
    assert verify(saved).problem == ""
    assert work.finish(work.start(work.resume_run, run.path)) == 0
    assert run.status().state == "done"
    assert work.weights_of(run) == expected


@pytest.mark.proof
def test_twenty_stops_at_twenty_offsets(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write(tmp_path, tiny_model)
    assert work.finish(work.start(work.train_recipe, recipe)) == 0
    undisturbed = work.the_run()
    assert undisturbed is not None
    expected = work.weights_of(undisturbed)
    delete_run(undisturbed)
    for offset in range(20):
        run = stop_with(recipe, signal.SIGTERM, after=1 + 2 * offset)
        assert run.status().state == "stopped"
        assert work.finish(work.start(work.resume_run, run.path)) == 0
        assert work.weights_of(run) == expected
        delete_run(run)


def test_a_file_asks_to_stop_where_signals_cannot(tmp_path: Path, tiny_model: Path) -> None:
    process = work.start(work.train_recipe, write(tmp_path, tiny_model))
    work.wait_for(lambda: work.steps_done() >= 3)
    run = work.the_run()
    assert run is not None
    run.stop_file.touch()
    assert work.finish(process) == 0
    assert run.status().state == "stopped"


def spoil_loss(monkeypatch: pytest.MonkeyPatch, step: int, value: float) -> None:
    whole = RunTrainer.compute_loss

    def compute_loss(self, *arguments, **named):  # type: ignore[no-untyped-def]
        loss = whole(self, *arguments, **named)
        return loss * value if self.state.global_step == step else loss

    monkeypatch.setattr(RunTrainer, "compute_loss", compute_loss)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_number_that_is_none_stops_before_it_reaches_the_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    spoil_loss(monkeypatch, 3, value)
    recipe = write(tmp_path, tiny_model, run={"steps": 8, "save_every_steps": 1})
    with pytest.raises(TrainingError, match="not a number any more at step 4") as caught:
        train(load_recipe(recipe))
    assert "learning_rate" in caught.value.hint
    run = work.the_run()
    assert run is not None
    assert run.status().state == "failed"
    assert [path.name for path in list_checkpoints(run.checkpoints)] == [
        "step-000001",
        "step-000002",
        "step-000003",
    ]
    assert len(work.losses_of(run)) == 3


def test_a_learning_rate_that_explodes_is_stopped_in_words(
    tmp_path: Path, tiny_model: Path
) -> None:
    recipe = write(
        tmp_path,
        tiny_model,
        tuning={"kind": "full"},
        optimizer={"learning_rate": 1e30, "max_grad_norm": 0, "warmup": 0, "batch_size": 4},
    )
    with pytest.raises(TrainingError, match="not a number"):
        train(load_recipe(recipe))


def train_in_little_disk(recipe: Path, limit: int) -> None:
    """Let no file grow over a limit, as a disk does that is full."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    work.train_recipe(recipe)


def test_a_full_disk_is_named_with_path_and_bytes(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write(tmp_path, tiny_model, run={"steps": 4, "save_every_steps": 2})
    process = work.start(train_in_little_disk, recipe, 20_000)
    assert work.finish(process) != 0
    run = work.the_run()
    assert run is not None
    status = run.status()
    assert status.state == "failed"
    assert "the checkpoint of step 2 cannot be written" in status.message
    assert "bytes were written" in status.message
    assert "checkpoint-2" in status.where
    assert list_checkpoints(run.checkpoints) == []
    assert work.finish(work.start(work.resume_run, run.path)) == 0
    assert run.status().state == "done"


def test_a_disk_with_too_little_room_is_refused_before_the_first_step(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunesmith.training.memory.disk_free", lambda path: 10_000)
    with pytest.raises(RunError, match=r"need [\d,]+ bytes, 10,000 are free"):
        train(load_recipe(write(tmp_path, tiny_model)))


def train_in_little_memory(recipe: Path, extra: int) -> None:
    """Let the process take only so many more bytes of memory than it has."""
    import psutil

    limit = psutil.Process().memory_info().vms + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    work.train_recipe(recipe)


def test_too_little_memory_is_named_as_the_cause(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "wide", intermediate_size=4096, hidden_size=512)
    long = [{"instruction": "q " * 50, "input": "", "output": "word " * 200}] * 2
    rows = [{**row, "output": f"{row['output']} {n}"} for n, row in enumerate(long * 16)]
    data = tiny.write_rows(tmp_path / "long.jsonl", rows)
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        model,
        data,
        data={"train": [str(data)], "max_tokens": 250},
        optimizer={"batch_size": 32, "learning_rate": 1e-4},
        tuning={"kind": "full"},
    )
    process = work.start(train_in_little_memory, recipe, 400_000_000)
    assert work.finish(process) != 0
    run = work.the_run()
    assert run is not None
    status = run.status()
    assert status.state == "failed"
    assert "memory ran out" in status.message
    assert "compute.tokens_per_batch" in status.hint


def test_a_second_process_on_the_same_run_is_refused_at_once(
    tmp_path: Path, tiny_model: Path
) -> None:
    process = work.start(work.train_recipe, write(tmp_path, tiny_model))
    work.wait_for(lambda: work.steps_done() >= 1)
    run = work.the_run()
    assert run is not None
    started = time.monotonic()
    with pytest.raises(RunError, match=rf"another process \({process.pid}\)"):
        work.resume_run(run.path)
    assert time.monotonic() - started < 1
    process.kill()
    work.finish(process)
    work.resume_run(run.path)
    assert run.status().state == "done"


def test_gradients_that_are_no_numbers_are_noticed(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self, model, *arguments, **named):  # type: ignore[no-untyped-def]
        loss = whole(self, model, *arguments, **named)
        next(p for p in model.parameters() if p.grad is not None).grad.fill_(float("nan"))
        return loss

    whole = RunTrainer.training_step
    monkeypatch.setattr(RunTrainer, "training_step", training_step)
    with pytest.raises(TrainingError, match="the gradient is not a number any more at step 1"):
        train(load_recipe(write(tmp_path, tiny_model)))
    assert work.the_run().status().state == "failed"  # type: ignore[union-attr]
