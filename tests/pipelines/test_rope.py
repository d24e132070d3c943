"""Training on texts longer than a model was made for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_tunings import HELD_OUT, close, logits, watched
from tunesmith.errors import ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.models.chat import load_chat_model, put_together
from tunesmith.models.layout import find_layout
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import resume, train


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of texts of 16 tokens; the rows have more."""
    folder = tmp_path_factory.mktemp("models") / "short"
    return tiny.make_model(folder, max_position_embeddings=16)


def run_on(folder: Path, model: Path, rope: Any, /, **sections: Any) -> Run:
    folder.mkdir(exist_ok=True)
    data = tiny.write_pairs(folder / "pairs.jsonl", 20)
    given = {"model": {"rope_scaling": rope}, **HELD_OUT, **sections}
    return train(load_recipe(tiny.write_recipe(folder / "r.json", model, data, **given)))


@pytest.mark.parametrize(
    ("tuning", "rope"),
    [
        ("lora", {"kind": "yarn"}),
        ("lora", {"kind": "dynamic"}),
        pytest.param("full", {"kind": "llama3", "factor": 4}, marks=pytest.mark.proof),
        pytest.param("lora", {"kind": "linear"}, marks=pytest.mark.proof),
    ],
)
def test_longer_rows_are_learned_and_the_export_says_how(
    tmp_path: Path, short: Path, tuning: str, rope: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    if tuning == "lora":
        with pytest.raises(RecipeError, match="the model takes 16"):
            run_on(tmp_path, short, None)
    seen = watched(monkeypatch)
    run = run_on(tmp_path, short, rope, tuning={"kind": tuning})
    assert find_layout(seen["policy"]).is_flat
    settled = run.recipe().model.rope_scaling
    assert settled is not None
    assert (settled.factor, settled.original_length) == (4, 16)
    loaded = load_chat_model(run.path, precision="fp32", device="cpu")
    assert close(logits(loaded.model), seen["logits"])
    exported = export(run.path, tmp_path / "out")
    plain = AutoModelForCausalLM.from_pretrained(str(exported.folder), dtype=torch.float32)
    assert plain.config.max_position_embeddings == (16 if rope["kind"] == "dynamic" else 64)
    assert plain.config.rope_parameters["rope_type"] == rope["kind"]
    assert close(logits(plain), seen["logits"])
    assert evaluate(run.path) is not None
    with pytest.raises(RecipeError, match="stretched already"):
        run_on(tmp_path, exported.folder, rope)


@pytest.mark.proof
@pytest.mark.parametrize("kind", ["yarn", "dynamic"])
def test_a_stop_and_a_resume_leave_the_same_bits(
    tmp_path: Path, short: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run_on(tmp_path, short, {"kind": kind})
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        stopped = run_on(tmp_path, short, {"kind": kind})
    resume(stopped)
    one, other = tiny.weights(whole), tiny.weights(stopped)
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.proof
def test_an_adapter_alone_does_not_lie_on_the_base_as_it_was(tmp_path: Path, short: Path) -> None:
    run = run_on(tmp_path, short, {"kind": "yarn"})
    bare = tmp_path / "bare"
    run.model.rename(bare)
    with pytest.raises(ModelError, match="another base"):
        load_chat_model(put_together(str(short), [str(bare)], None, None))


@pytest.mark.proof
def test_a_reward_model_is_stretched_too(tmp_path: Path, short: Path) -> None:
    rows = [{"instruction": f"q {n}", "chosen": f"yes {n}" * 4, "rejected": "no"} for n in range(9)]
    data = tiny.write_rows(tmp_path / "pairs.jsonl", rows)
    given: dict[str, Any] = {
        "model": {"rope_scaling": {"kind": "yarn"}},
        "method": {"name": "reward"},
        "data": {"validation_share": 0.2},
        "evaluate": {"sample_rows": 0},
    }
    recipe = tiny.write_recipe(tmp_path / "r.json", short, data, **given)
    tiny.change_json(recipe, evaluate={})
    run = train(load_recipe(recipe))
    assert evaluate(run.path) is not None
