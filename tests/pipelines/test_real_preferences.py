"""Real pairs and judgements: what held-out rows say of the answers moves the way people meant."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.methods.held_out import measure_held_out
from tunesmith.methods.method import Joining
from tunesmith.models.layout import find_layout
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.training.prepare import prepare_run
from tunesmith.training.train import load_policy, train

pytestmark = pytest.mark.proof
INFO = Path("data") / "hiyouga+LLaMA-Factory" / "data" / "dataset_info.json"
MEASURES = ("loss", "rewards_margin", "rewards_accuracy")


@dataclass(frozen=True)
class Settings:
    """What a person would choose for a model as small as the starter."""

    rate: float
    steps: int = 30
    batch_size: int = 4
    rows: str = "dpo_en_demo"
    data: dict[str, Any] = field(default_factory=lambda: {"max_tokens": 256})
    method: dict[str, Any] = field(default_factory=dict)


SETTINGS = {
    "dpo": Settings(2e-4, batch_size=8, data={"max_tokens": 256, "validation_share": 0.2}),
    "orpo": Settings(5e-4, steps=60, method={"beta": 0.5}),
    "simpo": Settings(5e-4, steps=60),
    "cpo": Settings(1e-3, steps=60),
    "reward": Settings(5e-4, steps=80),
    "kto": Settings(1e-3, steps=40, batch_size=8, rows="kto_en_demo", data={"max_tokens": 128}),
}


def recipe_of(tmp_path: Path, info: Path, name: str) -> Recipe:
    chosen = SETTINGS[name]
    path = tiny.write_recipe(
        tmp_path / "r.json",
        "starter",
        chosen.rows,
        data={
            "train": [chosen.rows],
            "info": str(info),
            "on_bad_row": "skip",  # some prompts leave no room for their answers
            "validation_share": 0.25,
            **chosen.data,
        },
        method={"name": name, **chosen.method},
        tuning={"kind": "lora", "rank": 16},
        optimizer={"learning_rate": chosen.rate, "batch_size": chosen.batch_size},
        run={"name": name, "steps": chosen.steps},
    )
    plain = json.loads(path.read_text("utf-8"))
    plain["evaluate"] = {"every_steps": chosen.steps}  # a reward model has no samples
    path.write_text(json.dumps(plain), "utf-8")
    return load_recipe(path)


def before_training(recipe: Recipe) -> tuple[float, ...]:
    """What held-out rows say of the model that training begins with."""
    prepared = prepare_run(recipe)
    if prepared.method.needs_reference:  # which is the model itself
        return 0.5 if recipe.method.name == "kto" else math.log(2), 0.0, 0.5
    model = load_policy(prepared).policy
    how = Joining(flat=find_layout(model).is_flat)
    rows = prepared.splits.validation
    assert rows is not None
    found = measure_held_out(model, prepared.method, rows, how=how, batch_size=8)
    assert found is not None
    return tuple(found[name] for name in MEASURES)


@pytest.mark.parametrize("name", SETTINGS)
def test_held_out_rewards_part_as_people_judged(tmp_path: Path, shared: Path, name: str) -> None:
    recipe = recipe_of(tmp_path, shared / INFO, name)
    before = before_training(recipe)
    run = train(recipe)
    (*_, last) = (record for record in run.metrics() if "eval_loss" in record)
    after = tuple(last[f"eval_{measure}"] for measure in MEASURES)
    for measure, one, other in zip(MEASURES, before, after, strict=True):
        print(f"{name} held-out {measure} {one:.4f} -> {other:.4f}")
    assert after[0] < before[0]
    assert after[1] > before[1]
    assert after[2] > before[2]
    if name not in ("dpo", "kto"):
        return
    scores = evaluate(run.path, max_rows=1)  # which asks the reference itself
    assert scores.tuned.pair_accuracy == pytest.approx(after[2], abs=0.03)
