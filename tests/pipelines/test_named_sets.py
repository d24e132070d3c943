"""Held-out sets with names are measured one by one, and one of them may say what is best."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.data.prepare import prepare
from tunesmith.methods import build_method
from tunesmith.models.reader import find_reader
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train


def train_on(folder: Path, model: Path, **sections: Any) -> Run:
    """Train on questions whose answers are sevenfold; of the held-out sets one agrees."""
    data = tiny.write_pairs(folder / "pairs.jsonl", 24)
    tiny.write_pairs(folder / "same.jsonl", 8, start=24)
    other = [{"instruction": f"question {n}", "output": "no 你好"} for n in range(40, 46)]
    tiny.write_rows(folder / "other.jsonl", other)
    held = {name: str(folder / f"{name}.jsonl") for name in ("same", "other")}
    sections["data"] = {"validation": held, "max_tokens": 64}
    recipe = tiny.write_recipe(folder / "r.json", model, data, tuning={"kind": "full"}, **sections)
    return train(load_recipe(recipe))


def loss_of(run: Run, name: str, weights: Path) -> tuple[float, int]:
    """Measure a set with transformers alone, row by row; return loss and learned tokens."""
    recipe = run.recipe()
    source = next(source for source in recipe.data.validation if source.name == name)
    data = recipe.data.model_copy(update={"train": (source,), "validation": ()})
    reader = find_reader(recipe.model.name)
    learn = build_method(recipe.method).learn
    rows = prepare(data, learn, reader.tokenizer, reader.template, seed=0).train
    model = AutoModelForCausalLM.from_pretrained(recipe.model.name).eval()
    model.load_state_dict(load_file(weights / "model.safetensors"), strict=False)
    total, count = 0.0, 0
    for row in range(len(rows)):
        ids, labels = (torch.tensor([rows[row][name]]) for name in ("input_ids", "labels"))
        learned = int((labels[:, 1:] != -100).sum())
        with torch.no_grad():
            total += float(model(ids, labels=labels).loss) * learned
        count += learned
    return total / count, count


def test_each_set_is_measured_and_the_total_is_their_mean(tmp_path: Path, tiny_model: Path) -> None:
    run = train_on(tmp_path, tiny_model, run={"compatible_outputs": True, "steps": 3})
    last = [record for record in run.metrics() if "eval_loss" in record][-1]
    same, many = loss_of(run, "same", run.model)
    other, few = loss_of(run, "other", run.model)
    assert last["eval_same_loss"] == pytest.approx(same, rel=1e-4)
    assert last["eval_other_loss"] == pytest.approx(other, rel=1e-4)
    whole = (same * many + other * few) / (many + few)
    assert last["eval_loss"] == pytest.approx(whole, rel=1e-4)
    results = json.loads((run.path / "eval_results.json").read_text("utf-8"))
    assert results["eval_same_loss"] == last["eval_same_loss"]


@pytest.mark.proof
@pytest.mark.parametrize("best_on", ["same", "other"])
def test_a_run_stops_by_the_set_that_the_recipe_names(
    tmp_path: Path, tiny_model: Path, best_on: str
) -> None:
    run = train_on(
        tmp_path,
        tiny_model,
        optimizer={"learning_rate": 1e-2, "batch_size": 8, "early_stopping": 2, "warmup": 0},
        evaluate={"every_steps": 1, "best_on": best_on},
        run={"steps": 8, "save_every_steps": 1},
    )
    key = f"eval_{best_on}_loss"
    measured = [(record[key], record["step"]) for record in run.metrics() if key in record]
    best, step = min(measured)
    assert loss_of(run, best_on, run.model)[0] == pytest.approx(best, rel=1e-4)
    if len(measured) < 8:
        assert measured[-1][1] == step + 2
