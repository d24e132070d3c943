"""Every optimizer learns, and goes on after a stop as if there had been none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import RecipeError, TrainingError
from tunesmith.models.load import load_model
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.schema import describe_section
from tunesmith.runs.run import Run
from tunesmith.training.footprint import Footprint
from tunesmith.training.train import resume, train
from tunesmith.training.trainer import RunTrainer

KINDS: dict[str, dict[str, Any]] = {
    "adamw": {"layer_decay": 0.9},
    "adamw_8bit": {},
    "lion": {},
    "lion_8bit": {},
    "adafactor": {},
    "sgd": {"momentum": 0.9, "learning_rate": 0.3},
    "muon": {},
    "galore": {"rank": 4, "project_every_steps": 2, "scale": 1.0},
    "apollo": {"rank": 4, "project_every_steps": 2},
    "apollo_mini": {"project_every_steps": 2},
    "adam_mini": {},
    "schedule_free": {},
    "badam": {"switch_every_steps": 2},
}
LAYERWISE = {
    name: {**KINDS[name], "layerwise": True, "max_grad_norm": 0}
    for name in ("adafactor", "sgd", "galore", "apollo", "apollo_mini")
}
ONLY_ON_A_GPU = {"adamw_paged_8bit"}
SCHEDULES: dict[str, dict[str, Any]] = {
    "linear": {},
    "constant": {},
    "warmup_stable_decay": {"decay": 0.5},
    "inverse_sqrt": {},
    "polynomial": {"power": 2.0},
    "cosine_with_restarts": {},
    "cosine_with_min_lr": {"min_rate": 0.1},
}


@pytest.fixture(scope="module")
def wide_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Matrices large enough to be remembered in 8 bits."""
    folder = tmp_path_factory.mktemp("models") / "wide"
    return tiny.make_model(folder, hidden_size=64, intermediate_size=128)


@pytest.fixture(autouse=True)
def no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out what takes longer than these trainings."""
    monkeypatch.setattr("tunesmith.training.report.write_report", lambda run: None)
    monkeypatch.setattr(Footprint, "gib", lambda *_, **__: 0)


def recipe_of(folder: Path, model: Path, optimizer: dict[str, Any], **sections: Any) -> Recipe:
    data = tiny.write_pairs(folder / "pairs.jsonl")
    parts: dict[str, Any] = {
        "tuning": {"kind": "full"},
        "data": {"validation_share": 0.2},
        "evaluate": {"every_steps": 2, "sample_rows": 0, "sample_tokens": 64},
        "run": {"steps": 6},
        **sections,
    }
    path = tiny.write_recipe(folder / "r.json", model, data, optimizer=optimizer, **parts)
    return load_recipe(path)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {n: t for path in folder.glob("*.safetensors") for n, t in load_file(path).items()}


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return bool(ours) and all(torch.equal(tensor, ours[name]) for name, tensor in theirs.items())


def values(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


def goes_on(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, step: int = 3) -> Run:
    """Train without a break and with one, compare to the bit, and return the first."""
    whole = train(recipe)
    with monkeypatch.context() as patch:
        stop_at(patch, step)
        run = train(recipe)
    assert run.status().step == step
    resume(run)
    assert run.status().identical
    assert values(run, "learning_rate") == values(whole, "learning_rate")
    assert values(run, "eval_loss") == values(whole, "eval_loss")
    assert same(run.model, whole.model)
    return whole


def test_every_name_is_trained_here() -> None:
    assert {*KINDS, *ONLY_ON_A_GPU} == set(describe_section("optimizer"))


SLOW = {"lion", "apollo"}
"""Next of kin to others that are tested always."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.proof) if n in SLOW else n for n in KINDS]
)
def test_a_stop_changes_nothing_and_the_loss_falls(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    recipe = recipe_of(tmp_path, wide_model, {"name": name, **KINDS[name]})
    run = goes_on(recipe, monkeypatch)
    assert values(run, "eval_loss")[-1] < values(run, "eval_loss")[0] < 6
    assert values(run, "loss")[-1] < values(run, "loss")[0] - 0.1


@pytest.mark.proof
@pytest.mark.parametrize("name", KINDS)
def test_a_stop_changes_nothing_in_sixteen_bits(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    compute = {"precision": "pure_bf16", "threads": 1}
    goes_on(
        recipe_of(tmp_path, wide_model, {"name": name, **KINDS[name]}, compute=compute), monkeypatch
    )


def test_the_exact_memory_of_adafactor_stays_exact_in_sixteen_bits(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = {"precision": "pure_bf16", "threads": 1}
    goes_on(recipe_of(tmp_path, wide_model, {"name": "adafactor"}, compute=compute), monkeypatch)


@pytest.mark.parametrize(
    "name", [n if n == "galore" else pytest.param(n, marks=pytest.mark.proof) for n in LAYERWISE]
)
def test_a_stop_changes_nothing_where_gradients_are_freed(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    compute = {"precision": "fp32", "threads": 1, "tokens_per_batch": 60}
    optimizer = {"name": name, **LAYERWISE[name]}
    goes_on(recipe_of(tmp_path, wide_model, optimizer, compute=compute), monkeypatch)


@pytest.mark.parametrize(
    "name",
    [
        name if name == "warmup_stable_decay" else pytest.param(name, marks=pytest.mark.proof)
        for name in SCHEDULES
    ],
)
def test_a_stop_changes_nothing_in_a_schedule(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    goes_on(
        recipe_of(tmp_path, wide_model, {"scheduler": name, **SCHEDULES[name]}),
        monkeypatch,
        step=4,
    )


@pytest.mark.parametrize("name", ["sgd", "adafactor"])
def test_freeing_gradients_and_splitting_an_update_change_only_the_rounding(
    tmp_path: Path, wide_model: Path, name: str
) -> None:
    curves = []
    for layerwise, tokens in ((False, 4096), (True, 4096), (True, 60)):
        optimizer = {"name": name, **KINDS[name], "layerwise": layerwise, "max_grad_norm": 0}
        compute = {"precision": "fp32", "threads": 1, "tokens_per_batch": tokens}
        run = train(recipe_of(tmp_path, wide_model, optimizer, compute=compute))
        curves.append(values(run, "loss") + values(run, "grad_norm"))
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)
    assert curves[2] == pytest.approx(curves[0], rel=1e-4)


def test_a_gradient_that_is_no_number_stops_where_gradients_are_freed(
    tmp_path: Path, wide_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def compute_loss(self, *given, **named):  # type: ignore[no-untyped-def]
        return whole(self, *given, **named) * (1e38 if self.state.global_step == 2 else 1.0) * 1e3

    whole = RunTrainer.compute_loss
    monkeypatch.setattr(RunTrainer, "compute_loss", compute_loss)
    optimizer = {"name": "sgd", "layerwise": True, "max_grad_norm": 0, "learning_rate": 1e-6}
    with pytest.raises(TrainingError, match="at step 3"):
        train(recipe_of(tmp_path, wide_model, optimizer))


def average(run: Run, step: int) -> dict[str, torch.Tensor]:
    """Work out the average from what the optimizer saved: weights that learn, and where they go."""
    folder = run.checkpoints / f"step-{step:06d}"
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    names = sorted((n for n, _ in model.named_parameters()), key=lambda name: "norm" in name)
    saved = torch.load(folder / "optimizer.pt", weights_only=True)
    places = [place for group in saved["param_groups"] for place in group["params"]]
    found = {}
    for name, place in zip(names, places, strict=True):
        learns, goes = (saved["state"][place][part] for part in ("aside", "z"))
        found[name] = learns + (goes - learns) * (1 - 1 / 0.9)
    return found


def is_average(run: Run, step: int) -> bool:
    averaged, published = average(run, step), weights(run.model)
    return all(torch.allclose(averaged[n], published[n], rtol=0, atol=1e-6) for n in averaged)


def test_what_is_published_measured_and_saved_is_the_average(
    tmp_path: Path, wide_model: Path
) -> None:
    recipe = recipe_of(tmp_path, wide_model, {"name": "schedule_free"})
    run = train(recipe)
    assert is_average(run, 6)
    assert same(run.model, run.checkpoints / "step-000006")
    path = tiny.write_recipe(
        tmp_path / "measure.json",
        run.model,
        tmp_path / "pairs.jsonl",
        tuning={"kind": "full"},
        data={"validation_share": 0.2},
        optimizer={"learning_rate": 1e-12},
        run={"steps": 1},
    )
    measured = values(train(load_recipe(path)), "eval_loss")
    assert values(run, "eval_loss")[-1] == pytest.approx(measured[0], rel=1e-5)


def test_an_early_stop_publishes_the_best_average(tmp_path: Path, wide_model: Path) -> None:
    run = train(
        recipe_of(
            tmp_path,
            wide_model,
            {"name": "schedule_free", "learning_rate": 0.1, "early_stopping": 2},
            run={"steps": 60, "save_every_steps": 7, "keep_checkpoints": 1},
        )
    )
    measured = {r["step"]: r["eval_loss"] for r in run.metrics() if "eval_loss" in r}
    best = min(measured, key=lambda step: measured[step])
    assert max(measured) == best + 4
    assert same(run.model, run.checkpoints / f"step-{best:06d}")
    assert is_average(run, best)


def test_one_layer_after_another_moves(tmp_path: Path, wide_model: Path) -> None:
    optimizer = {"name": "badam", "switch_every_steps": 2, "learning_rate": 1e-2}
    before = weights(wide_model)
    for steps, moving in ((2, {"0"}), (4, {"0", "1"})):
        run = train(recipe_of(tmp_path, wide_model, optimizer, run={"steps": steps}))
        after = weights(run.model)
        moved = [name for name in before if not torch.equal(before[name], after[name])]
        assert {name.split(".")[2] for name in moved} == moving
        assert all(".layers." in name for name in moved)
    saved = torch.load(run.checkpoints / "step-000004" / "optimizer.pt", weights_only=True)
    assert not saved["state"]  # the turn of the next layer begins


def test_lora_plus_learns_at_two_rates(tmp_path: Path, wide_model: Path) -> None:
    curves = [
        values(
            train(
                recipe_of(
                    tmp_path,
                    wide_model,
                    {"learning_rate": 1e-3},
                    tuning={"kind": "lora", "lora_plus_ratio": ratio},
                )
            ),
            "loss",
        )
        for ratio in (1, 16)
    ]
    assert curves[1][-1] < curves[0][-1]


@pytest.mark.parametrize(
    ("optimizer", "tuning", "where"),
    [
        ({"cycles": 3}, {}, "optimizer.cycles"),
        ({"min_rate": 0.1}, {}, "optimizer.min_rate"),
        ({"scheduler": "linear", "power": 2}, {}, "optimizer.power"),
        ({"scheduler": "polynomial", "decay": 0.2}, {}, "optimizer.decay"),
        ({"scheduler": "cosine_with_min_lr"}, {}, "optimizer.min_rate"),
        (
            {"scheduler": "warmup_stable_decay", "warmup": 0.6, "decay": 0.5},
            {},
            "optimizer.decay",
        ),
        ({"layer_decay": 0.9}, {"kind": "lora"}, "optimizer.layer_decay"),
        ({"name": "galore"}, {"kind": "lora"}, "optimizer.name"),
        ({"name": "badam"}, {"kind": "freeze"}, "optimizer.name"),
        ({"name": "sgd", "layerwise": True}, {}, "optimizer.max_grad_norm"),
    ],
)
def test_an_option_without_effect_is_refused(
    tmp_path: Path, wide_model: Path, optimizer: Any, tuning: Any, where: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        train(recipe_of(tmp_path, wide_model, optimizer, tuning={"kind": "full", **tuning}))
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("optimizer", "hint"),
    [
        ({"momentum": 0.9}, "where optimizer.name is sgd or optimizer.momentum"),
        ({"name": "sgd", "rank": 4}, "where optimizer.name is galore, apollo"),
        ({"name": "schedule_free", "scheduler": "linear"}, "is any but schedule_free"),
        ({"name": "adamw8bit"}, "did you mean adamw_8bit?"),
        ({"name": "lion", "bata1": 0.5}, "did you mean beta1?"),
    ],
)
def test_an_option_of_another_optimizer_is_answered_with_its_owner(
    tmp_path: Path, wide_model: Path, optimizer: Any, hint: str
) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of(tmp_path, wide_model, optimizer)
    assert hint in caught.value.hint
