"""Training within shifted groups, answering and measuring with whole rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_tunings import HELD_OUT, close, logits, watched
from tunesmith.errors import RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.models.chat import load_chat_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import list_runs
from tunesmith.training.train import resume, train


def run_on(folder: Path, model: Path, /, **sections: Any) -> Run:
    folder.mkdir(exist_ok=True)
    data = tiny.write_pairs(folder / "pairs.jsonl", 20)
    given = {**HELD_OUT, "model": {"shifted_attention": 8}, **sections}
    return train(load_recipe(tiny.write_recipe(folder / "r.json", model, data, **given)))


@pytest.mark.proof
@pytest.mark.parametrize("checkpointing", ["on", "off"])
def test_groups_are_learned_in_and_whole_rows_answered_from(
    tmp_path: Path, tiny_model: Path, checkpointing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = {"gradient_checkpointing": checkpointing}
    seen = watched(monkeypatch)
    run = run_on(tmp_path, tiny_model, compute=compute)
    whole = run_on(tmp_path, tiny_model, compute=compute, model={})
    first, other = (
        next(record["loss"] for record in each.metrics() if "loss" in record)
        for each in (run, whole)
    )
    assert first != other
    assert "logits" in seen
    loaded = load_chat_model(run.path, precision="fp32", device="cpu")
    exported = load_chat_model(
        export(run.path, tmp_path / "out").folder, precision="fp32", device="cpu"
    )
    assert close(logits(exported.model), logits(loaded.model))
    scores = evaluate(run.path)
    assert scores.tuned.loss is not None
    assert scores.base is not None
    assert scores.tuned.loss < scores.base.loss


@pytest.mark.proof
def test_a_stop_and_a_resume_leave_the_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_on(tmp_path, tiny_model)
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        stopped = run_on(tmp_path, tiny_model)
    resume(stopped)
    one, other = tiny.weights(whole), tiny.weights(stopped)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_windows_are_refused_before_a_run_is_made(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "m", "mistral")
    with pytest.raises(RecipeError, match="windows already"):
        run_on(tmp_path, model)
    assert not list_runs()
