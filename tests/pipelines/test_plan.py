"""A dry run tells what a run will do, and is right."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.method import GRPO
from tunesmith.recipe.rewards import ScoredBy
from tunesmith.runs.store import create_run, list_runs
from tunesmith.training.plan import dry_run
from tunesmith.training.prepare import settle_names
from tunesmith.training.train import train


@pytest.mark.parametrize("kind", ["lora", "full", "freeze"])
def test_the_plan_equals_what_the_run_then_does(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 30)
    recipe = load_recipe(
        tiny.write_recipe(
            tmp_path / "r.json",
            tiny_model,
            data,
            tuning={"kind": kind},
            data={"validation_share": 0.1},
            run={"epochs": 2, "steps": None},
        )
    )
    plan = dry_run(recipe)
    assert not list_runs()
    run = train(recipe)
    assert plan.steps == run.status().step == 2 * -(-27 // 4)
    assert (plan.rows, plan.validation_rows, plan.reported_rows) == (27, 3, 0)
    assert plan.epochs == 2
    assert 0 < plan.learned_share < 1
    weights = sum(path.stat().st_size for path in run.model.glob("*.safetensors"))
    saved = plan.num_trained if kind == "lora" else plan.num_weights
    assert weights == pytest.approx(4 * saved, rel=0.2)
    assert plan.memory_gib > 0
    assert plan.seconds > 0


def test_experts_that_stay_whole_are_told_of(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 30)
    for name, model in (
        ("dense", tiny_model),
        ("mixture", tiny.make_model(tmp_path / "m", "mixture")),
    ):
        quantized = {"name": str(model), "quantize": {"kind": "hqq"}}
        dry_run(load_recipe(tiny.write_recipe(tmp_path / "r.json", model, data, model=quantized)))
        told = [record.message for record in caplog.records if "experts" in record.message]
        assert len(told) == (name == "mixture")
    experts = 2 * 4 * 3 * 32 * 32  # layers, experts, matrices of hidden x inner
    plain = AutoModelForCausalLM.from_pretrained(str(tmp_path / "m"))
    every = sum(weight.numel() for weight in plain.parameters())
    assert f"{100 * experts / every:.0f} % of the weights" in told[0]


def test_the_run_that_judges_is_written_out_in_full(tmp_path: Path, tiny_model: Path) -> None:
    pairs = tiny.write_pairs(tmp_path / "pairs.jsonl")
    path = tiny.write_recipe(tmp_path / "r.json", tiny_model, pairs, run={"name": "judge"})
    judge = create_run(load_recipe(path))
    assert judge.name != "judge"
    method = {"name": "grpo", "rewards": [{"model": "judge"}, "json"], "answer_tokens": 4}
    path = tiny.write_recipe(tmp_path / "r.json", tiny_model, pairs, method=method)
    found = settle_names(load_recipe(path)).method
    assert isinstance(found, GRPO)
    assert isinstance(found.rewards[0], ScoredBy)
    assert found.rewards[0].model == judge.name
