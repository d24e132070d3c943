"""Training in fp16: losses are scaled, and an update that overflows is left out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import tiny
from tests.gpu.test_training import stop_at
from tests.pipelines.test_online import learn
from tests.pipelines.test_ppo import all_weights, trained
from tests.pipelines.test_quantized import adapter
from tunesmith.errors import TrainingError
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.scaling import Scaling
from tunesmith.training.train import resume
from tunesmith.training.train import train as train_recipe

FP16 = {"precision": "fp16", "threads": 1, "device": "cpu"}
TOO_LARGE = 2.0**26
"""A scale at which the first gradients of the tiny model overflow."""


@pytest.fixture
def begins_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let scales begin where the first updates are left out."""
    begin = Scaling.__init__

    def begin_too_large(self: Scaling, accelerator: Any) -> None:
        begin(self, accelerator)
        self.scaler._init_scale = TOO_LARGE  # it is made at the first update

    monkeypatch.setattr(Scaling, "__init__", begin_too_large)


def train(folder: Path, model: Path, kind: str, **sections: Any) -> Run:
    options: dict[str, Any] = {
        "tuning": {"kind": kind},
        "compute": FP16,
        "optimizer": {"learning_rate": 1e-3 if kind == "full" else 1e-2, "warmup": 0},
        "run": {"steps": 14, "save_every_steps": 5},
    }
    return tiny.train_run(folder, model, **{**options, **sections})


def told(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


@pytest.mark.proof
def test_it_learns_what_fp32_learns(tmp_path: Path, tiny_model: Path) -> None:
    half = train(tmp_path, tiny_model, "lora")
    exact = train(tmp_path, tiny_model, "lora", compute={"precision": "fp32", "threads": 1})
    assert half.environment()["precision"] == "fp16"
    assert told(half, "loss") == pytest.approx(told(exact, "loss"), rel=5e-4)
    assert told(half, "loss") != told(exact, "loss")
    assert told(half, "loss")[-1] < 0.95 * told(half, "loss")[0]
    assert sum(told(half, "updates_left_out")) == 0
    assert not told(exact, "loss_scale")


@pytest.mark.usefixtures("begins_too_large")
def test_updates_that_overflow_are_left_out_and_a_resume_goes_on_to_the_bit(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path, tiny_model, "full")
    left_out = int(sum(told(whole, "updates_left_out")))
    assert 5 < left_out < 13
    scales = told(whole, "loss_scale")
    assert scales[:left_out] == [TOO_LARGE / 2**n for n in range(1, left_out + 1)]
    assert set(scales[left_out:]) == {TOO_LARGE / 2**left_out}
    assert len(told(whole, "grad_norm")) == 14 - left_out  # of the others it is no number
    with monkeypatch.context() as patched:
        stop_at(5, patched)
        run = train(tmp_path, tiny_model, "full")
    assert run.status().state == "stopped"
    resume(run)
    for name in ("loss", "loss_scale", "updates_left_out", "learning_rate"):
        assert told(run, name) == told(whole, name)
    kept = tiny.weights(whole)
    assert all(torch.equal(weight, kept[name]) for name, weight in tiny.weights(run).items())


RANKS: dict[str, Any] = {
    "tuning": {"kind": "adalora", "rank": 2, "first_rank": 4},
    "optimizer": {"learning_rate": 3e-2, "warmup": 0},
    "run": {"steps": 16},
}


@pytest.mark.proof
def test_what_is_added_to_gradients_is_scaled_as_they_are(tmp_path: Path, tiny_model: Path) -> None:
    half = train(tmp_path, tiny_model, "adalora", **RANKS)
    exact = train(
        tmp_path, tiny_model, "adalora", **RANKS, compute={"precision": "fp32", "threads": 1}
    )
    for name in ("loss", "grad_norm"):
        assert told(half, name) == pytest.approx(told(exact, name), rel=5e-2)
    ours, theirs = adapter(half), adapter(exact)
    for name, weight in ours.items():
        assert torch.equal(weight == 0, theirs[name] == 0), name  # the same ranks are left
        assert torch.allclose(weight, theirs[name], atol=0.02), name
    assert any("lora_E" in name and (one == 0).any() for name, one in ours.items())


@pytest.mark.usefixtures("begins_too_large")
def test_ranks_learn_nothing_of_updates_that_are_left_out(tmp_path: Path, tiny_model: Path) -> None:
    run = train(tmp_path, tiny_model, "adalora", **RANKS)
    assert 3 < sum(told(run, "updates_left_out")) < 13
    assert all(bool(weight.isfinite().all()) for weight in adapter(run).values())
    with pytest.raises(TrainingError, match="no update was made before"):
        train(tmp_path, tiny_model, "adalora", **{**RANKS, "run": {"steps": 4}})


@pytest.mark.usefixtures("begins_too_large")
def test_an_update_that_is_left_out_moves_nothing(tmp_path: Path, tiny_model: Path) -> None:
    run = train(tmp_path, tiny_model, "lora", run={"steps": 4})
    assert sum(told(run, "updates_left_out")) == 4
    moved = {name: w for name, w in tiny.weights(run).items() if "lora_B" in name}
    assert moved
    assert not any(bool(weight.any()) for weight in moved.values())  # they begin at zero


def test_a_scale_of_one_is_the_last() -> None:
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaling = Scaling(SimpleNamespace(scaler=scaler))
    weight = torch.nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    for may_go_on in (True, False):
        scaler.scale(weight.sum() * float("inf")).backward()  # type: ignore[no-untyped-call]
        assert scaling.leave_out(1) is may_go_on
        scaler.step(optimizer)
        scaler.update()
    assert scaling.take() == {"loss_scale": 0.5, "updates_left_out": 1.0}
    assert scaling.take()["updates_left_out"] == 0.0


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "m", tie_word_embeddings=False)
    weights = load_file(model / "model.safetensors")
    weights["model.layers.0.mlp.down_proj.weight"] *= 1e9
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(TrainingError) as caught:
        train(tmp_path, model, "lora")
    assert "not a number any more at step 1" in caught.value.message
    assert caught.value.hint.startswith("write compute.precision: bf16 or fp32")


@pytest.mark.proof
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("method", ["dpo", "grpo", "ppo"])
def test_other_methods_learn_and_go_on_in_fp16(
    tmp_path: Path, tiny_model: Path, method: str, tuning: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {
        "tuning": {"kind": tuning},
        "compute": FP16,
        "optimizer": {"batch_size": 8, "learning_rate": 2e-3, "warmup": 0},
        "run": {"name": method, "steps": 12, "seed": 1},
    }

    def once(**more: Any) -> Run:
        sections = {**options, **more}
        if method == "grpo":
            return learn(tmp_path / method, tiny_model, **sections)
        if method == "ppo":
            return trained(tmp_path / method, tiny_model, **sections)
        rows = [
            {"instruction": f"question {n}", "chosen": f"It is {n}.", "rejected": "a lazy dog"}
            for n in range(24)
        ]
        data = tiny.write_rows(tmp_path / "pairs.jsonl", rows)
        recipe = tiny.write_recipe(
            tmp_path / "r.json", tiny_model, data, method={"name": "dpo"}, **sections
        )
        return train_recipe(load_recipe(recipe))

    whole = once()
    assert whole.environment()["precision"] == "fp16"
    assert sum(told(whole, "updates_left_out")) == 0
    exact = once(compute={"precision": "fp32", "threads": 1, "device": "cpu"})
    first = "loss" if method == "dpo" else "reward"
    assert told(whole, first)[0] == pytest.approx(told(exact, first)[0], rel=0.1, abs=0.02)
    if method == "dpo":
        assert told(whole, "loss") == pytest.approx(told(exact, "loss"), rel=2e-2)
    with monkeypatch.context() as patched:
        stop_at(6, patched)
        run = once()
    assert (run.status().state, run.status().step) == ("stopped", 6)
    resume(run)
    ours, theirs = all_weights(run), all_weights(whole)
    assert all(torch.equal(weight, ours[name]) for name, weight in theirs.items())
