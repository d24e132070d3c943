"""New blocks between those of a model: trained, stopped and resumed, answering, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_tunings import HELD_OUT, close, logits, watched
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.models.chat import load_chat_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import resume, train

PRO: dict[str, Any] = {"kind": "llama_pro", "blocks": 1}


def run_on(folder: Path, model: Path, **sections: Any) -> Run:
    folder.mkdir(exist_ok=True)
    data = tiny.write_pairs(folder / "pairs.jsonl", 20)
    given = {"tuning": PRO, **HELD_OUT, **sections}
    return train(load_recipe(tiny.write_recipe(folder / "r.json", model, data, **given)))


@pytest.mark.parametrize(
    "shape", ["qwen3", *(pytest.param(each, marks=pytest.mark.proof) for each in ("gemma3",))]
)
def test_new_blocks_alone_move_and_are_exported(
    tmp_path: Path, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny.make_model(tmp_path / "model", shape)
    seen = watched(monkeypatch)
    run = run_on(tmp_path, model, optimizer={"learning_rate": 3e-2})
    for name, weight in seen["policy"].named_parameters():
        assert torch.equal(weight, seen["before"][name]) != name.startswith("model.layers.2."), name
    losses = [record["loss"] for record in run.metrics() if "loss" in record]
    assert losses[-1] < losses[0]
    loaded = load_chat_model(run.path, precision="fp32", device="cpu")
    assert close(logits(loaded.model), seen["logits"])
    exported = export(run.path, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(str(exported.folder), dtype=torch.float32)
    assert plain.config.num_hidden_layers == 3
    assert close(logits(plain), seen["logits"])
    assert evaluate(run.path) is not None


@pytest.mark.proof
def test_a_stop_and_a_resume_leave_the_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_on(tmp_path, tiny_model)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        stopped = run_on(tmp_path, tiny_model)
    assert stopped.status().state == "stopped"
    resume(stopped)
    one, other = tiny.weights(whole), tiny.weights(stopped)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.proof
def test_preferences_are_compared_with_the_model_before(tmp_path: Path, tiny_model: Path) -> None:
    rows = [{"instruction": f"q {n}", "chosen": f"yes {n}", "rejected": "no"} for n in range(12)]
    data = tiny.write_rows(tmp_path / "pairs.jsonl", rows)
    given = {"tuning": PRO, "method": {"name": "dpo"}, "run": {"steps": 3}}
    run = train(load_recipe(tiny.write_recipe(tmp_path / "r.json", tiny_model, data, **given)))
    first = next(record["loss"] for record in run.metrics() if "loss" in record)
    assert first == pytest.approx(0.6931, abs=1e-4)
