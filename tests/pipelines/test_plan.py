"""A dry run tells what a run will do, and is right."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import tiny
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.store import list_runs
from tunesmith.training.plan import dry_run
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
