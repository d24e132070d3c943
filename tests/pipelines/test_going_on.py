"""What a stop, a resume and an accepted change leave as it was, and what they change."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import tiny
from tests.command import Command
from tunesmith.errors import RecipeError, RunError, TrainingError
from tunesmith.models.roles import load_reader, load_roles
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import list_runs, open_run
from tunesmith.training import fit
from tunesmith.training.footprint import Footprint
from tunesmith.training.launch import resume_detached
from tunesmith.training.plan import dry_run
from tunesmith.training.train import resume, train
from tunesmith.training.trainer import RunTrainer
from tunesmith.training.watch import Watch

HELD_OUT = {
    "tuning": {"kind": "full"},
    "data": {"validation_share": 0.3},
    "optimizer": {"learning_rate": 3e-2, "batch_size": 4, "early_stopping": 2},
    "evaluate": {"every_steps": 3},
    "run": {"steps": 60, "save_every_steps": 7, "keep_checkpoints": 1},
}


def write(tmp_path: Path, model: Path, **sections: object) -> Path:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    return tiny.write_recipe(tmp_path / "r.json", model, data, **sections)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int, *, while_measuring: bool = False) -> None:
    """Ask for a stop when an update ends, or when the measurement after it is about to begin."""

    def on_step_end(self, args, state, control, **rest):  # type: ignore[no-untyped-def]
        if state.global_step == step and not while_measuring:
            self.run.stop_file.touch()
        whole_end(self, args, state, control, **rest)

    def is_due(self, now):  # type: ignore[no-untyped-def]
        if now == step and while_measuring:
            self.stop.file.touch()
        return whole_due(self, now)

    whole_end, whole_due = Watch.on_step_end, RunTrainer.is_evaluation_due
    monkeypatch.setattr(Watch, "on_step_end", on_step_end)
    monkeypatch.setattr(RunTrainer, "is_evaluation_due", is_due)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def measured(run: Run) -> dict[int, float]:
    return {r["step"]: r["eval_loss"] for r in run.metrics() if "eval_loss" in r}


def change(run: Run, section: str, option: str, value: object) -> None:
    recipe = yaml.safe_load(run.recipe_file.read_text("utf-8"))
    recipe[section][option] = value
    run.recipe_file.write_text(yaml.safe_dump(recipe), "utf-8")


@pytest.mark.parametrize("while_measuring", [False, True])
@pytest.mark.parametrize("when", ["early", "best", "last"])
def test_a_stop_where_a_measurement_is_due_changes_nothing(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    when: str,
    while_measuring: bool,
) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, **HELD_OUT))
    undisturbed = train(recipe)
    curve = measured(undisturbed)
    best = min(curve, key=lambda step: curve[step])
    step = {"early": 3, "best": best, "last": max(curve)}[when]
    with monkeypatch.context() as patch:
        stop_at(patch, step, while_measuring=while_measuring)
        run = train(recipe)
    assert run.status().state == "stopped"
    assert run.status().step == step
    resume(run)
    assert run.status().state == "done"
    assert run.status().identical
    assert measured(run) == curve
    ours, theirs = weights(run.model), weights(undisturbed.model)
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())


def test_the_best_weights_are_kept_wherever_they_fall(tmp_path: Path, tiny_model: Path) -> None:
    run = train(load_recipe(write(tmp_path, tiny_model, **HELD_OUT)))
    curve = measured(run)
    best = min(curve, key=lambda step: curve[step])
    assert best % 7
    kept = weights(run.checkpoints / f"step-{best:06d}")
    assert all(torch.equal(tensor, kept[name]) for name, tensor in weights(run.model).items())


def test_a_damaged_best_checkpoint_is_not_published(tmp_path: Path, tiny_model: Path) -> None:
    run = train(load_recipe(write(tmp_path, tiny_model, **HELD_OUT)))
    curve = measured(run)
    best = run.checkpoints / f"step-{min(curve, key=lambda step: curve[step]):06d}"
    content = bytearray((best / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (best / "model.safetensors").write_bytes(content)
    with pytest.raises(RunError, match=r"best held-out loss, step-.* is damaged"):
        resume(run)
    assert not best.exists()
    assert list(run.checkpoints.glob("damaged-*"))


@pytest.mark.parametrize(("log_every", "save_every"), [(3, 2), (1, 4)])
def test_a_resume_logs_what_would_have_been_logged(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    log_every: int,
    save_every: int,
) -> None:
    times = {"steps": 8, "log_every_steps": log_every, "save_every_steps": save_every}
    recipe = load_recipe(write(tmp_path, tiny_model, run=times))
    undisturbed = train(recipe)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        run = train(recipe)
    resume(run)
    curves = [[(r["step"], r["loss"]) for r in each.metrics()] for each in (run, undisturbed)]
    assert curves[0] == curves[1]


def test_accepted_options_of_the_optimizer_act(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"scheduler": "constant", "warmup": 0, "weight_decay": 0.0}
    recipe = load_recipe(write(tmp_path, tiny_model, optimizer=options))
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        run = train(recipe)
    change(run, "optimizer", "learning_rate", 1e-4)
    change(run, "optimizer", "weight_decay", 0.5)
    resume(run, accept_changes=True)
    rates = [record["learning_rate"] for record in run.metrics()]
    assert rates[:4] == pytest.approx([1e-2] * 4)
    assert rates[4:] == pytest.approx([1e-4] * 4)
    state = torch.load(run.checkpoints / "step-000008" / "optimizer.pt", weights_only=True)
    assert state["param_groups"][0]["weight_decay"] == 0.5


def test_other_sample_questions_are_asked_anew(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model, evaluate={"sample_rows": 3}))
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        run = train(recipe)
    change(run, "evaluate", "sample_rows", 2)
    resume(run, accept_changes=True)
    assert run.status().state == "done"
    assert len(run.samples_file.read_text("utf-8").splitlines()) == 2


@pytest.mark.parametrize("steps", [1, 2])
def test_weights_that_are_no_numbers_are_never_kept(
    tmp_path: Path, tiny_model: Path, steps: int
) -> None:
    huge = {"learning_rate": 1e38, "scheduler": "constant", "warmup": 0}
    times = {"steps": steps, "save_every_steps": 1}
    path = write(tmp_path, tiny_model, optimizer=huge, run=times, tuning={"kind": "full"})
    with pytest.raises(TrainingError, match="not a number any more at step 1"):
        train(load_recipe(path))
    (run,) = list_runs()
    assert run.status().state == "failed"
    assert not list(run.checkpoints.iterdir())
    assert not run.model.exists()


def test_a_gradient_whose_length_overflows_stops_the_run(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def training_step(self, model, *arguments, **named):  # type: ignore[no-untyped-def]
        loss = whole(self, model, *arguments, **named)
        next(p for p in model.parameters() if p.grad is not None).grad.fill_(1e30)
        return loss

    whole = RunTrainer.training_step
    monkeypatch.setattr(RunTrainer, "training_step", training_step)
    with pytest.raises(TrainingError, match="gradient is not a number any more at step 1"):
        train(load_recipe(write(tmp_path, tiny_model)))


def test_pure_bf16_leaves_the_positions_exact(tmp_path: Path, tiny_model: Path) -> None:
    found = []
    for precision in ("fp32", "pure_bf16"):
        options = {"precision": precision, "threads": 1}
        recipe = load_recipe(write(tmp_path, tiny_model, compute=options))
        roles = load_roles(recipe, load_reader(recipe))
        found.append({name: b for name, b in roles.policy.named_buffers() if "inv_freq" in name})
    exact, ours = found
    assert exact
    assert all(torch.equal(tensor, ours[name]) for name, tensor in exact.items())


def test_a_lost_status_is_mended_as_its_hint_says(tmp_path: Path, tiny_model: Path) -> None:
    run = train(load_recipe(write(tmp_path, tiny_model)))
    run.status_file.write_bytes(b"\0\0")
    with pytest.raises(RunError, match="the status cannot be read"):
        run.status()
    run.status_file.unlink()
    resume(open_run(run.name))
    assert run.status().state == "done"


def test_damaged_runs_do_not_stand_in_the_way_of_others(
    tmp_path: Path, tiny_model: Path, command: Command
) -> None:
    recipe = load_recipe(write(tmp_path, tiny_model))
    runs = [train(recipe) for _ in range(3)]
    runs[0].recipe_file.write_text("nonsense: 1\n", "utf-8")
    runs[1].status_file.write_bytes(b"{")
    runs[2].metrics_file.write_bytes(runs[2].metrics_file.read_bytes() + b"\0\0\n")
    assert command("runs", "show", runs[2].name).code == 0
    listed = command("runs", "list")
    assert listed.code == 0
    assert all(run.name in listed.out for run in runs)
    assert "damaged" in listed.out
    assert len(runs[2].metrics()) == 8


def test_a_refused_resume_leaves_a_finished_run_finished(tmp_path: Path, tiny_model: Path) -> None:
    run = train(load_recipe(write(tmp_path, tiny_model)))
    change(run, "optimizer", "learning_rate", 1.0)
    for going_on in (resume, resume_detached):
        with pytest.raises(RunError, match="these changed"):
            going_on(run)
        assert run.status().state == "done"


def test_a_run_that_is_worked_on_is_not_started_in_the_background(
    tmp_path: Path, tiny_model: Path
) -> None:
    run = train(load_recipe(write(tmp_path, tiny_model)))
    with run.take(), pytest.raises(RunError, match="another process"):
        resume_detached(run)


def test_the_person_at_the_terminal_is_told(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cut = {"max_tokens": 16, "on_long_row": "cut"}
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        run = train(load_recipe(write(tmp_path, tiny_model, data=cut)))
    assert "rows were cut" in capsys.readouterr().out
    assert "rows were cut" in run.log_file.read_text("utf-8")
    shutil.copytree(run.checkpoints / "step-000004", run.checkpoints / "step-000005")
    resume(run)
    told = capsys.readouterr().out
    assert "checkpoint step-000005 is damaged" in told
    assert "going on from step 4" in told
    assert not [h for h in logging.getLogger().handlers if type(h).__module__ == "tunesmith.logs"]


def test_what_a_kill_left_half_deleted_is_cleared(tmp_path: Path, tiny_model: Path) -> None:
    run = train(load_recipe(write(tmp_path, tiny_model)))
    (run.checkpoints / ".deleted-step-000002").mkdir()
    shutil.copytree(run.path, run.path.with_name(f".deleted-{run.name}"))
    resume(run)
    assert not list(run.checkpoints.glob(".deleted-*"))
    assert [found.name for found in list_runs()] == [run.name]


def test_how_an_update_is_computed_is_decided_once(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Footprint, "gib", lambda *_, checkpointing, **__: 2 - checkpointing)
    run = train(load_recipe(write(tmp_path, tiny_model, compute={"memory_gib": 1.5})))
    settled = run.recipe().compute
    assert settled.gradient_checkpointing == "on"
    assert settled.tokens_per_batch == fit.BATCH_TOKENS["cpu"]
    monkeypatch.setattr(Footprint, "gib", lambda *_, **__: 0)
    resume(run)
    assert run.status().identical
    assert run.recipe().compute == settled


@pytest.mark.parametrize("held_out", [False, True])
def test_rows_longer_than_a_model_takes_are_refused(tmp_path: Path, held_out: bool) -> None:
    model = tiny.make_model(tmp_path / "gpt2", "gpt2")
    short = tiny.write_pairs(tmp_path / "short.jsonl")
    long = [{"instruction": "q", "input": "", "output": "word " * 300}]
    rows = tiny.write_rows(tmp_path / "long.jsonl", long)
    data = {"train": [str(rows)], "max_tokens": 1024}
    if held_out:
        data = {"train": [str(short)], "validation": [str(rows)], "max_tokens": 1024}
    path = tiny.write_recipe(tmp_path / "r.json", model, short, data=data)
    with pytest.raises(RecipeError, match="the model takes 256"):
        dry_run(load_recipe(path))
