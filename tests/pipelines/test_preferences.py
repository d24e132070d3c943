"""Learn from preference pairs: from files to a model that prefers as it was shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import ModelError, RecipeError, RunError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.inference.generate import answer, encode_prompt
from tunesmith.inference.sampling import Sampling
from tunesmith.models.chat import find_subject, load_subject
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.settings import read_settings
from tunesmith.training import reference
from tunesmith.training.advice import advise
from tunesmith.training.plan import dry_run
from tunesmith.training.train import resume, train

PAIRS = [
    {"instruction": f"question {n}", "chosen": f"It is {n * 7}.", "rejected": "the lazy dog"}
    for n in range(24)
]


def recipe_of(folder: Path, model: Path, /, **sections: Any) -> Path:
    data = tiny.write_rows(folder / "pairs.jsonl", PAIRS)
    given = {
        "method": {"name": "dpo"},
        "data": {"validation_share": 0.2},
        "run": {"name": "tiny", "steps": 12, "seed": 1, "log_every_steps": 3},
        **sections,
    }
    return tiny.write_recipe(folder / "r.json", model, data, **given)


def train_pairs(folder: Path, model: Path, /, **sections: Any) -> Run:
    return train(load_recipe(recipe_of(folder, model, **sections)))


def kept() -> dict[str, int]:
    folder = read_settings().cache / "reference"
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*")}


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_the_model_comes_to_prefer_what_was_chosen(
    tmp_path: Path, tiny_model: Path, tuning: str
) -> None:
    run = train_pairs(tmp_path, tiny_model, tuning={"kind": tuning})
    trained = [record for record in run.metrics() if "loss" in record]
    assert trained[0]["loss"] == pytest.approx(0.6931, abs=0.2)
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert trained[-1]["rewards_margin"] > trained[0]["rewards_margin"]
    assert trained[-1]["rewards_accuracy"] == 1.0
    measured = [record for record in run.metrics() if "eval_loss" in record]
    assert measured[-1]["eval_rewards_accuracy"] == 1.0
    assert measured[-1]["eval_rewards_margin"] > 0

    scores = evaluate(run.name)
    assert scores.base is not None
    assert scores.base.loss == pytest.approx(0.6931, abs=1e-3)
    assert (scores.base.perplexity, scores.tuned.pair_accuracy) == (None, 1.0)
    assert scores.base.pair_accuracy is None
    assert scores.tuned.loss == pytest.approx(measured[-1]["eval_loss"], rel=1e-3)

    model = load_subject(find_subject(run.name), precision="fp32")
    prompt = encode_prompt(model, ({"role": "user", "content": "question 1"},))
    assert answer(model, [prompt], Sampling(max_tokens=4))


@pytest.mark.parametrize("during", ["reference", "training"])
def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, during: str
) -> None:
    whole = tiny.weights(train_pairs(tmp_path, tiny_model))
    for file in (read_settings().cache / "reference").glob("*"):
        file.unlink()
    with monkeypatch.context() as patch:
        _ask_to_stop(patch, during)
        run = train_pairs(tmp_path, tiny_model)
    assert run.status().state == "stopped"
    assert run.status().step == (5 if during == "training" else 0)
    for file in (read_settings().cache / "reference").glob("*"):
        file.unlink()  # it is computed again, to the same bits
    again = tiny.weights(resume(Run(run.path)))
    assert all(torch.equal(again[name], one) for name, one in whole.items())


def _ask_to_stop(patch: pytest.MonkeyPatch, during: str) -> None:
    """Ask while the first batch of the reference is computed, or after five updates."""
    whole_logps = reference.reference_logps

    def logps(*given: Any, share: Any, **rest: Any) -> Any:
        share.give_up.__self__.file.touch()
        return whole_logps(*given, share=share, **rest)

    if during == "training":
        stop_at(patch, 5)
    else:
        patch.setattr(reference, "reference_logps", logps)


def test_the_reference_is_computed_once_and_again_after_any_change(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_pairs(tmp_path, tiny_model)
    first = kept()
    assert len(first) == 2  # training and validation rows
    with monkeypatch.context() as patch:
        patch.setattr(reference, "_compute", None)
        train_pairs(tmp_path, tiny_model, method={"name": "dpo", "beta": 0.5})
    assert kept() == first
    other = tiny.make_model(tmp_path / "other", seed=5)
    changes: list[tuple[Path, dict[str, Any]]] = [
        (other, {}),
        (tiny_model, {"data": {"validation_share": 0.2, "system": "be kind"}}),
        (tiny_model, {"model": {"template": "alpaca"}}),
        (tiny_model, {"compute": {"tokens_per_batch": 100}}),
        (tiny_model, {"compute": {"precision": "bf16"}}),
        (tiny_model, {"compute": {"precision": "bf16"}, "tuning": {"kind": "full"}}),
    ]
    for number, (model, sections) in enumerate(changes, 2):
        train_pairs(tmp_path, model, **sections)
        assert len(kept()) == 2 * number
    for file in (read_settings().cache / "reference").glob("*"):
        file.write_bytes(file.read_bytes()[:-1] + b"x")
    train_pairs(tmp_path, tiny_model)
    changed = {name for name, time in kept().items() if first.get(name, time) != time}
    assert changed == first.keys()


@pytest.mark.parametrize("name", ["orpo", "simpo", "cpo"])
def test_methods_without_a_reference_learn_and_are_evaluated(
    tmp_path: Path, tiny_model: Path, name: str
) -> None:
    run = train_pairs(tmp_path, tiny_model, method={"name": name})
    trained = [record for record in run.metrics() if "loss" in record]
    learned = 0.0 if name == "cpo" else 1.0  # it sums over tokens, and its chosen are longer
    assert trained[-1]["rewards_accuracy"] == learned
    assert trained[-1]["rewards_margin"] > trained[0]["rewards_margin"]
    assert kept() == {}
    scores = evaluate(run.name)
    assert scores.base is not None
    assert scores.base.pair_accuracy is not None  # it may prefer some before it learns
    assert scores.tuned.pair_accuracy == learned
    assert scores.tuned.perplexity is None


def test_the_reference_may_be_another_model(tmp_path: Path, tiny_model: Path) -> None:
    other = tiny.make_model(tmp_path / "other", seed=5)
    method = {"name": "dpo", "reference": "other"}
    run = train_pairs(tmp_path, tiny_model, method=method)
    assert run.recipe().method.model_dump()["reference"] == str(other)
    first = next(record for record in run.metrics() if "loss" in record)
    assert abs(first["loss"] - 0.693147) > 1e-3
    before = kept()
    scores = evaluate(run.name)
    assert scores.base is not None
    assert scores.base.pair_accuracy is not None
    tiny.make_model(other, seed=6)
    with pytest.raises(RunError, match="the reference is not the model"):
        evaluate(run.name)
    with pytest.raises(RunError, match="reference_weights"):
        resume(Run(run.path))
    train_pairs(tmp_path, tiny_model, method=method)
    assert len(kept()) == 2 * len(before)


def test_a_reference_of_another_vocabulary_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    other = tiny.make_model(tmp_path / "other")
    content = json.loads((other / "tokenizer.json").read_text("utf-8"))
    content["added_tokens"].append({**content["added_tokens"][0], "id": 400, "content": "<new>"})
    (other / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    with pytest.raises(ModelError, match="another vocabulary"):
        train_pairs(tmp_path, tiny_model, method={"name": "dpo", "reference": str(other)})
    with pytest.raises(ModelError):
        train_pairs(tmp_path, tiny_model, method={"name": "dpo", "reference": "nowhere"})


def test_a_model_that_takes_padded_rows_learns_too(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", "bloom")
    run = train_pairs(tmp_path, model, tuning={"kind": "full"})
    assert [r["rewards_accuracy"] for r in run.metrics() if "loss" in r][-1] == 1.0


def test_the_command_line_shows_both_answers(tmp_path: Path, command: Command) -> None:
    data = tiny.write_rows(tmp_path / "pairs.jsonl", PAIRS)
    told = command("data", "show", str(data), "--row", "2", "--method", "dpo")
    assert "chosen, " in told.out
    assert "It is 7." in told.out
    assert "the lazy dog" in told.out
    answers = {"method": "dpo", "model": "starter", "data": data, "tuning": "lora", "name": "a"}
    options = [text for name, value in answers.items() for text in (f"--{name}", str(value))]
    written = command("recipe", "new", str(tmp_path / "new.yaml"), *options)
    assert written.code == 0, written.out
    assert "learning_rate: 5.0e-05" in (tmp_path / "new.yaml").read_text("utf-8")


def test_a_dry_run_counts_pairs(tmp_path: Path, tiny_model: Path) -> None:
    plan = dry_run(load_recipe(recipe_of(tmp_path, tiny_model)))
    assert (plan.rows, plan.validation_rows) == (19, 5)
    assert not plan.change


def test_a_reference_of_shorter_texts_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    short = tiny.make_model(tmp_path / "short", max_position_embeddings=8)
    method = {"name": "dpo", "reference": str(short)}
    with pytest.raises(RecipeError, match="the model takes 8") as caught:
        dry_run(load_recipe(recipe_of(tmp_path, tiny_model, method=method)))
    assert str(short) in caught.value.where


def test_nothing_is_dropped_where_a_reference_dropped_nothing(tmp_path: Path) -> None:
    options = {"resid_pdrop": 0.5, "embd_pdrop": 0.5, "attn_pdrop": 0.5}
    model = tiny.make_model(tmp_path / "model", "gpt2", **options)
    run = train_pairs(tmp_path, model, run={"name": "tiny", "steps": 2, "log_every_steps": 1})
    first = next(record for record in run.metrics() if "loss" in record)
    assert first["loss"] == pytest.approx(0.693147, abs=1e-4)
    recipe = recipe_of(tmp_path, model, tuning={"kind": "lora", "dropout": 0.1})
    with pytest.raises(RecipeError, match=r"tuning\.dropout has no effect"):
        train(load_recipe(recipe))


def test_a_high_learning_rate_is_told(
    tmp_path: Path, tiny_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dry_run(load_recipe(recipe_of(tmp_path, tiny_model)))
    assert "is high for dpo" in caplog.text


def test_a_report_judges_pairs_by_how_many_are_told_apart(tmp_path: Path, tiny_model: Path) -> None:
    run = train_pairs(tmp_path, tiny_model, run={"name": "tiny", "steps": 24, "log_every_steps": 1})
    (advice,) = advise(run.metrics())
    assert (advice.kind, advice.seen) == ("settled", "at the end 100% of the pairs were told apart")


def test_a_model_from_scratch_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    sections = {"model": {"from_scratch": True}, "tuning": {"kind": "full"}}
    with pytest.raises(RecipeError, match="no answers of its own"):
        train_pairs(tmp_path, tiny_model, **sections)
