"""An adapter that begins as what few bits leave out goes all the way on what they hold."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_tunings import close, logits, watched
from tunesmith.errors import ExportError, ModelError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.export.order import Form
from tunesmith.models.chat import load_chat_model, put_together
from tunesmith.models.load import load_model
from tunesmith.models.loftq import FILE
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run
from tunesmith.training.beginning import begin_adapter
from tunesmith.training.prepare import prepare_run
from tunesmith.training.train import load_policy, resume

LOFTQ = {"kind": "lora", "rank": 4, "init": "loftq", "loftq_rounds": 2}
HELD_OUT: dict[str, Any] = {
    "data": {"validation_share": 0.2},
    "evaluate": {"every_steps": 3},
    "run": {"steps": 6, "save_every_steps": 3},
}


def train(folder: Path, model: Path, /, **sections: Any) -> Run:
    quantized = {"name": str(model), "quantize": {"kind": "nf4"}}
    given = {"model": quantized, "tuning": LOFTQ, **HELD_OUT, **sections}
    return tiny.train_run(folder, model, **given)


def adapter(run: Run) -> dict[str, torch.Tensor]:
    return {
        **load_file(run.model / "adapter_model.safetensors"),
        **load_file(run.model / FILE),
    }


@pytest.mark.parametrize("kind", ["nf4", pytest.param("hqq", marks=pytest.mark.proof)])
def test_what_was_trained_answers_is_measured_and_merged(
    tmp_path: Path, tiny_model: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = watched(monkeypatch)
    model = {"name": str(tiny_model), "quantize": {"kind": kind}}
    run = train(tmp_path, tiny_model, model=model)
    trained = seen["logits"]
    chat = load_chat_model(run.path, precision="fp32", device="cpu")
    assert close(logits(chat.model), trained)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(run.model, elsewhere)
    named = put_together(str(tiny_model), [str(elsewhere)], None, None)
    alone = load_chat_model(named, precision="fp32", device="cpu")
    assert close(logits(alone.model), trained)
    exported = export(run.path, tmp_path / "out", precision="fp32")
    merged = load_chat_model(exported.folder, precision="fp32", device="cpu")
    assert close(logits(merged.model), trained)
    assert exported.from_quantized is not None
    assert exported.from_quantized.max_logit_difference < 1e-4
    plain = load_chat_model(run.path, base_only=True, precision="fp32", device="cpu")
    assert not close(logits(plain.model), trained, 1e-3)
    scores = evaluate(run.path, max_rows=1, max_tokens=4)
    assert scores.tuned.loss < scores.base.loss


@pytest.mark.proof
def test_a_stopped_run_goes_on_to_the_same_bits(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train(tmp_path, tiny_model)
    with monkeypatch.context() as patched:
        stop_at(patched, 4)
        run = train(tmp_path, tiny_model)
    assert run.status().state == "stopped"
    kept = run.beginning_file.read_bytes()
    resume(run)
    assert run.beginning_file.read_bytes() == kept
    expected = adapter(whole)
    assert all(torch.equal(tensor, expected[name]) for name, tensor in adapter(run).items())


def test_it_begins_nearer_to_the_base_than_few_bits_alone(tmp_path: Path, tiny_model: Path) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    base = load_model(tiny_model, dtype=torch.float32, device=torch.device("cpu"))
    wanted, apart = logits(base), []
    for rounds in (1, 5):
        given = {
            "model": {"name": str(tiny_model), "quantize": {"kind": "nf4"}},
            "tuning": {**LOFTQ, "loftq_rounds": rounds},
        }
        recipe = load_recipe(tiny.write_recipe(tmp_path / "r.json", tiny_model, data, **given))
        prepared = prepare_run(recipe)
        roles = load_policy(prepared)
        apart.append(float((logits(roles.policy) - wanted).norm()))
        begin_adapter(create_run(recipe), prepared, roles)
        apart.append(float((logits(roles.policy) - wanted).norm()))
    few_bits, one_round, same, five_rounds = apart
    assert same == few_bits
    assert one_round < 0.92 * few_bits
    assert five_rounds < 0.8 * few_bits


def test_it_is_added_to_nothing_else(tmp_path: Path, tiny_model: Path) -> None:
    run = train(tmp_path, tiny_model, run={"steps": 1})
    plain = tiny.train_run(tmp_path, tiny_model, run={"steps": 1})
    for sections, where in (
        ({"tuning": {"kind": "lora", "rank": 4, "from_adapter": run.name}}, "tuning.from_adapter"),
        ({"model": {"name": str(tiny_model), "adapters": [run.name]}}, "model.adapters"),
    ):
        with pytest.raises(ModelError) as caught:
            tiny.train_run(tmp_path, tiny_model, **sections)
        assert caught.value.where == where
    with pytest.raises(ModelError) as caught:
        export(plain.path, tmp_path / "out", blend={run.name: 1.0})
    assert "loftq" in caught.value.message
    with pytest.raises(ExportError, match="loftq"):
        export(run.path, tmp_path / "out", form=Form("adapter"))
