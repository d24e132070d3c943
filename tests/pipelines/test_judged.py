"""Learn from judged answers: from files to a model that says the good ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.advice import advise
from tunesmith.training.samples import read_samples
from tunesmith.training.train import resume, train

ROWS = [
    {
        "prompt": f"question {n}",
        "completion": f"It is {n * 7}." if n % 2 else "the lazy dog",
        "label": n % 2 == 1,
    }
    for n in range(32)
]


def train_judged(folder: Path, model: Path, /, **sections: Any) -> Run:
    data = tiny.write_rows(folder / "judged.jsonl", ROWS)
    given = {
        "method": {"name": "kto"},
        "data": {"validation_share": 0.25},
        "optimizer": {"batch_size": 8},
        "run": {"name": "tiny", "steps": 16, "seed": 1},
        **sections,
    }
    return train(load_recipe(tiny.write_recipe(folder / "r.json", model, data, **given)))


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_good_answers_gain_and_bad_ones_lose(tmp_path: Path, tiny_model: Path, tuning: str) -> None:
    run = train_judged(tmp_path, tiny_model, tuning={"kind": tuning})
    trained = [record for record in run.metrics() if "loss" in record]
    assert trained[0]["loss"] == pytest.approx(0.5, abs=1e-3)
    assert trained[-1]["loss"] < 0.45
    assert trained[-1]["rewards_margin"] > 0.1
    assert trained[-1]["rewards_chosen"] > trained[-1]["rewards_rejected"]
    assert all(record["kl"] >= 0 for record in trained)
    measured = [record for record in run.metrics() if "eval_loss" in record]
    assert measured[-1]["eval_rewards_margin"] > 0.1
    assert advise(run.metrics())[0].seen.endswith("rows were on the right side")
    assert next(sample["expected"] for sample in read_samples(run)).startswith("It is")

    scores = evaluate(run.name)
    assert scores.base is not None
    assert scores.base.loss == pytest.approx(0.5, abs=1e-3)
    assert scores.base.pair_accuracy is None
    assert scores.tuned.pair_accuracy == pytest.approx(measured[-1]["eval_rewards_accuracy"])
    assert scores.tuned.loss == pytest.approx(measured[-1]["eval_loss"], rel=1e-3)
    assert scores.answers
    assert all(asked.expected.startswith("It is") for asked in scores.answers)


def test_a_small_budget_of_tokens_learns_the_same(tmp_path: Path, tiny_model: Path) -> None:
    whole, split = (
        train_judged(tmp_path, tiny_model, compute={"tokens_per_batch": tokens})
        for tokens in (4096, 64)
    )
    for record, other in zip(whole.metrics(), split.metrics(), strict=True):
        for name in ("loss", "kl", "rewards_margin"):
            if name in record:
                assert other[name] == pytest.approx(record[name], rel=1e-3, abs=1e-4)


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.weights(train_judged(tmp_path, tiny_model))
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        run = train_judged(tmp_path, tiny_model)
    assert (run.status().state, run.status().step) == ("stopped", 5)
    again = tiny.weights(resume(Run(run.path)))
    assert all(torch.equal(again[name], one) for name, one in expected.items())


def test_a_model_that_takes_padded_rows_learns_too(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", "bloom")
    run = train_judged(tmp_path, model, tuning={"kind": "full"})
    assert [r["rewards_margin"] for r in run.metrics() if "loss" in r][-1] > 0.1
