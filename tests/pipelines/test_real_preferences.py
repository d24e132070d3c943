"""Real pairs and judgements: what held-out rows say of the answers moves the way people meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train

pytestmark = pytest.mark.proof
INFO = Path("data") / "hiyouga+LLaMA-Factory" / "data" / "dataset_info.json"


def learn(tmp_path: Path, info: Path, rows: str, method: str, **data: Any) -> Run:
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        "starter",
        rows,
        data={
            "train": [rows],
            "info": str(info),
            "on_bad_row": "skip",  # some prompts leave no room for their answers
            **data,
        },
        method={"name": method},
        tuning={"kind": "lora", "rank": 16},
        optimizer={"learning_rate": 1e-3 if method == "kto" else 5e-4, "batch_size": 8},
        compute={"precision": "fp32", "threads": 1},
        evaluate={"every_steps": 5, "sample_rows": 3, "sample_tokens": 64},
        run={"name": method, "steps": 40 if method == "kto" else 60},
    )
    return train(load_recipe(recipe))


@pytest.mark.parametrize(("method", "rows"), [("dpo", "dpo_zh_demo"), ("kto", "kto_en_demo")])
def test_held_out_rewards_part_as_people_judged(
    tmp_path: Path, shared: Path, method: str, rows: str
) -> None:
    sizes = {"max_tokens": 128, "validation_share": 0.25}
    if method == "dpo":
        sizes = {"max_tokens": 256, "validation_share": 0.2}
    run = learn(tmp_path, shared / INFO, rows, method, **sizes)
    held_out = [record for record in run.metrics() if "eval_loss" in record]
    margins = [record["eval_rewards_margin"] for record in held_out]
    shares = [record["eval_rewards_accuracy"] for record in held_out]
    print(method, "margin", margins[0], "->", margins[-1], "accuracy", shares[0], "->", shares[-1])
    assert margins[-1] > max(margins[0], 0.0)
    assert shares[-1] > max(shares[0], 0.5)
    scores = evaluate(run.path, max_rows=1)
    assert scores.tuned.pair_accuracy == pytest.approx(shares[-1], abs=0.03)
