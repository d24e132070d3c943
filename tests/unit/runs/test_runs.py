"""A run directory is written whole, found by name, and seen through when its process died."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path

import pytest

from tunesmith.errors import RunError
from tunesmith.recipe.load import build_recipe
from tunesmith.runs import write
from tunesmith.runs.compare import compare, summary
from tunesmith.runs.control import read_log, stop
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run, delete_run, list_runs, open_run


def make(name: str = "first", **optimizer: object) -> Run:
    return create_run(
        build_recipe(
            {
                "model": {"name": "m"},
                "data": {"train": "a"},
                "optimizer": optimizer,
                "run": {"name": name},
            }
        )
    )


def log_losses(run: Run, *losses: float) -> None:
    for step, loss in enumerate(losses, 1):
        run.append_metrics({"step": step, "loss": loss, "tokens_per_second": 10.0})


def test_a_new_run_holds_its_whole_recipe() -> None:
    run = make(learning_rate=1e-3)
    assert run.recipe().optimizer.learning_rate == 1e-3
    assert "max_grad_norm: 1.0" in run.recipe_file.read_text("utf-8")
    assert run.status().state == "new"


def test_two_runs_of_one_minute_get_two_names() -> None:
    first, second = make(), make()
    assert first.path != second.path
    assert [run.name for run in list_runs()] == sorted([first.name, second.name])


def test_a_run_is_found_by_directory_by_name_and_by_its_last_part() -> None:
    run = make("polite")
    assert open_run(run.path) == open_run(run.name) == open_run("polite") == run


def test_a_last_part_that_two_runs_share_is_refused_with_both_names() -> None:
    first, second = make(), make()
    with pytest.raises(RunError, match="2 runs are called first") as caught:
        open_run("first")
    assert first.name in caught.value.hint
    assert second.name in caught.value.hint


def test_a_run_that_is_not_there_is_answered_with_the_nearest() -> None:
    run = make("polite")
    with pytest.raises(RunError, match="no run") as caught:
        open_run(run.name[:-1])
    assert run.name in caught.value.hint


def test_runs_that_cannot_be_made_name_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x", "utf-8")
    monkeypatch.setenv("TUNESMITH_RUNS", str(tmp_path / "file"))
    with pytest.raises(RunError, match="cannot be made") as caught:
        make()
    assert "TUNESMITH_RUNS" in caught.value.hint


def test_the_lock_refuses_a_second_worker_at_once_and_names_the_first() -> None:
    run = make()
    lock = run.take()
    started = time.monotonic()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        message = pool.apply(try_to_take, (run.path,))
    assert f"({run.status().pid})" in message
    lock.release()
    run.take().release()
    assert time.monotonic() - started < 20


def try_to_take(path: Path) -> str:
    started = time.monotonic()
    try:
        Run(path).take()
    except RunError as problem:
        assert time.monotonic() - started < 1
        return problem.message
    return "taken"


def test_a_run_whose_process_died_is_seen_as_interrupted() -> None:
    run = make()
    run.write_status(state="running", step=3)
    status = run.status()
    assert status.state == "interrupted"
    assert "runs resume" in status.hint


def test_a_running_run_is_seen_as_running() -> None:
    run = make()
    lock = run.take()
    run.write_status(state="running")
    assert run.status().state == "running"
    lock.release()


def test_a_damaged_status_says_what_to_do() -> None:
    run = make()
    run.status_file.write_text("{", "utf-8")
    with pytest.raises(RunError, match="status cannot be read") as caught:
        run.status()
    assert "resume" in caught.value.hint


def test_metrics_leave_out_a_last_line_that_a_kill_cut_short() -> None:
    run = make()
    log_losses(run, 2.0, 1.0)
    with run.metrics_file.open("ab") as file:
        file.write(b'{"step": 3, "lo')
    assert [record["loss"] for record in run.metrics()] == [2.0, 1.0]


def test_metrics_after_a_step_are_dropped_for_a_resume() -> None:
    run = make()
    log_losses(run, 3.0, 2.0, 1.0)
    run.keep_metrics_until(2)
    assert [record["step"] for record in run.metrics()] == [1, 2]


def test_a_write_leaves_the_old_file_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f.json"
    write.write_json(path, {"old": 1})

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.os, "fsync", no_room)
    with pytest.raises(RunError, match="No space left") as caught:
        write.write_json(path, {"new": 2})
    assert caught.value.where == str(path)
    assert path.read_text("utf-8") == '{\n  "old": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_a_run_that_does_not_run_cannot_be_stopped() -> None:
    with pytest.raises(RunError, match="not running, it is new"):
        stop(make())


def test_stopping_leaves_word_for_the_process_that_runs() -> None:
    run = make()
    taken, end = threading.Event(), threading.Event()

    def work() -> None:
        with run.take():
            taken.set()
            end.wait(20)

    worker = threading.Thread(target=work)
    worker.start()
    taken.wait(20)
    with pytest.raises(RunError, match="has not stopped within"):
        stop(run, wait_seconds=0.2)
    assert run.stop_file.exists()
    threading.Timer(0.2, end.set).start()
    stop(run, wait_seconds=10)
    worker.join()


def test_a_log_is_followed_until_the_run_ends() -> None:
    run = make()
    run.log_file.write_text("one\n", "utf-8")
    assert list(read_log(run)) == ["one\n"]
    lock = run.take()
    seen = []
    for text in read_log(run, follow=True):
        seen.append(text)
        if text == "one\n":
            with run.log_file.open("a", encoding="utf-8") as file:
                file.write("two\n")
        else:
            lock.release()
    assert seen == ["one\n", "two\n"]


def test_runs_side_by_side_show_only_options_that_differ() -> None:
    first, second = make("a", learning_rate=1e-3), make("b", learning_rate=1e-4)
    log_losses(first, 3.0, 2.0)
    log_losses(second, 3.0)
    second.append_metrics({"step": 1, "eval_loss": 2.5})
    found = compare([first, second])
    assert found.options == {
        "optimizer.learning_rate": [1e-3, 1e-4],
        "run.name": ["a", "b"],
    }
    assert found.results["last loss"] == [2.0, 3.0]
    assert found.results["best held-out loss"] == [None, 2.5]


def test_a_run_without_steps_has_no_figures() -> None:
    assert summary(make()) == {
        "steps": 0.0,
        "first loss": None,
        "last loss": None,
        "best held-out loss": None,
        "last held-out loss": None,
        "tokens a second": None,
    }


def test_a_deleted_run_is_gone_but_not_while_it_runs() -> None:
    run = make()
    lock = run.take()
    with pytest.raises(RunError, match="is running"):
        delete_run(run)
    lock.release()
    delete_run(run)
    assert list_runs() == []
    assert not run.path.exists()
