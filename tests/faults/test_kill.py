"""A run cannot be lost: killed at any moment, it goes on to the same weights, bit for bit."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests import tiny
from tests.faults import work
from tunesmith.runs.run import Run
from tunesmith.runs.store import delete_run

LORA = {"tuning": {"kind": "lora", "rank": 4, "dropout": 0.1}}
FULL = {"tuning": {"kind": "full"}}
PACKED = {"method": {"name": "pretrain"}, "tuning": {"kind": "lora", "rank": 4, "dropout": 0.1}}
TIMES = {"run": {"steps": 12, "save_every_steps": 2}}


def write(tmp_path: Path, model: Path, **sections: object) -> Path:
    if "method" in sections:
        texts = [{"text": f"the quick brown fox jumps over {n} lazy dogs"} for n in range(60)]
        data = tiny.write_rows(tmp_path / "texts.jsonl", texts)
    else:
        data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    held_out = {"validation_share": 0.2, "train": [str(data)], "max_tokens": 64}
    return tiny.write_recipe(
        tmp_path / "r.json", model, data, **{**TIMES, "data": held_out, **sections}
    )


def train_undisturbed(recipe: Path) -> str:
    assert work.finish(work.start(work.train_recipe, recipe)) == 0
    run = work.the_run()
    assert run is not None
    weights = work.weights_of(run)
    delete_run(run)
    return weights


def kill_after_steps(recipe: Path, steps: int, delay: float) -> Run:
    process = work.start(work.train_recipe, recipe)
    work.wait_for(lambda: work.steps_done() >= steps)
    time.sleep(delay)
    return kill(process)


def kill_inside_save(recipe: Path, number: int, delay: float) -> tuple[Run, bool]:
    """Kill about when the checkpoint of a step is written; say whether it was half written."""
    process = work.start(work.train_recipe, recipe)
    work.wait_for(lambda: work.the_run() is not None)
    run = work.the_run()
    assert run is not None
    partial = run.checkpoints / ".partial" / f"checkpoint-{number}"
    work.wait_for(partial.exists)
    time.sleep(delay)
    return kill(process), partial.exists()


def kill(process: object) -> Run:
    process.kill()  # type: ignore[attr-defined]
    work.finish(process)  # type: ignore[arg-type]
    run = work.the_run()
    assert run is not None
    return run


def resume_and_compare(run: Run, expected: str) -> None:
    assert run.status().state in ("interrupted", "new", "done")
    assert work.finish(work.start(work.resume_run, run.path)) == 0
    assert run.status().state == "done"
    assert run.status().identical
    assert work.weights_of(run) == expected
    assert [r["step"] for r in run.metrics() if "loss" in r] == list(range(1, 13))
    delete_run(run)


@pytest.mark.parametrize("tuning", [LORA, FULL])
def test_runs_killed_between_and_inside_saves_end_with_the_same_bits(
    tmp_path: Path, tiny_model: Path, tuning: dict[str, object]
) -> None:
    recipe = write(tmp_path, tiny_model, **tuning)
    expected = train_undisturbed(recipe)
    resume_and_compare(kill_after_steps(recipe, 3, 0.01), expected)
    resume_and_compare(kill_inside_save(recipe, 4, 0.0)[0], expected)


def test_a_run_killed_twice_ends_with_the_same_bits(tmp_path: Path, tiny_model: Path) -> None:
    recipe = write(tmp_path, tiny_model, **LORA)
    expected = train_undisturbed(recipe)
    run = kill_after_steps(recipe, 3, 0.0)
    process = work.start(work.resume_run, run.path)
    work.wait_for(lambda: work.steps_done() >= 7)
    kill(process)
    resume_and_compare(run, expected)


@pytest.mark.proof
@pytest.mark.parametrize("tuning", [LORA, FULL, PACKED])
def test_twenty_kills_ten_of_them_inside_a_save(
    tmp_path: Path, tiny_model: Path, tuning: dict[str, object]
) -> None:
    recipe = write(tmp_path, tiny_model, **tuning)
    expected = train_undisturbed(recipe)
    draw = random.Random(0)
    for _ in range(10):
        run = kill_after_steps(recipe, draw.randint(0, 11), draw.uniform(0, 0.05))
        resume_and_compare(run, expected)
    inside = 0
    for number in range(40):
        run, half_written = kill_inside_save(recipe, 2 + 2 * (number % 6), draw.uniform(0, 0.01))
        resume_and_compare(run, expected)
        inside += half_written
        if inside == 10:
            return
    pytest.fail(f"only {inside} of 40 kills hit a checkpoint that was being written")
