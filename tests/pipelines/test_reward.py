"""Train a reward model, load it again with its head, score with it, and talk to it in vain."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from tests import tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_preferences import PAIRS, train_pairs
from tunesmith.cli.show_run import show_end
from tunesmith.errors import DataError, ModelError, RecipeError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export import reward
from tunesmith.inference.score import score
from tunesmith.models.chat import find_subject, load_chat_model, load_reward_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run
from tunesmith.training.samples import read_samples
from tunesmith.training.train import resume

REWARD = {"name": "reward", "center_rewards": 0.01}


def train_rewarded(folder: Path, model: Path, /, **sections: Any) -> Run:
    usual = {"evaluate": {"sample_rows": 3, "sample_tokens": 64}, "method": REWARD}
    return train_pairs(folder, model, **{**usual, **sections})


def conversation(number: int, answer: str) -> list[dict[str, str]]:
    return [
        {"role": "user", "content": PAIRS[number]["instruction"]},
        {"role": "assistant", "content": PAIRS[number][answer]},
    ]


@pytest.mark.parametrize("tuning", ["lora", "full", "freeze"])
def test_it_comes_to_score_the_chosen_higher_and_loads_again_with_its_head(
    tmp_path: Path, tiny_model: Path, tuning: str
) -> None:
    run = train_rewarded(tmp_path, tiny_model, tuning={"kind": tuning})
    trained = [record for record in run.metrics() if "loss" in record]
    assert trained[-1]["loss"] < trained[0]["loss"]
    assert trained[-1]["rewards_accuracy"] == 1.0
    measured = [record for record in run.metrics() if "eval_loss" in record]
    assert measured[-1]["eval_rewards_accuracy"] == 1.0
    assert read_samples(run) == []

    scores = evaluate(run.name)
    assert (scores.base, scores.answers) == (None, [])
    assert scores.tuned.pair_accuracy == 1.0
    assert scores.tuned.loss == pytest.approx(measured[-1]["eval_loss"], rel=1e-3)

    model = load_reward_model(find_subject(run.name))
    margins = [
        score(model, conversation(n, "chosen")) - score(model, conversation(n, "rejected"))
        for n in range(len(PAIRS))
    ]
    assert min(margins) > 0
    stored = tiny.weights(run)
    (name,) = (name for name in stored if "score" in name)
    assert stored[name].shape == (1, 32)
    if tuning != "lora":  # any reader of such folders scores the same
        theirs: Any = AutoModelForSequenceClassification.from_pretrained(str(run.model))
        assert theirs.config.num_labels == 1
        template = model.template.render_rows(conversation(0, "chosen"), learn_history=False)
        text = "".join(piece.text for piece in template[0]).rstrip("\n")
        given = model.tokenizer(text, return_tensors="pt", add_special_tokens=False)
        with torch.no_grad():
            found = float(theirs(input_ids=given["input_ids"]).logits)
        assert found == pytest.approx(score(model, conversation(0, "chosen")), abs=1e-5)


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.weights(train_rewarded(tmp_path, tiny_model))
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        run = train_rewarded(tmp_path, tiny_model)
    assert run.status().step == 5
    again = tiny.weights(resume(Run(run.path)))
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], one) for name, one in expected.items())


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_whoever_asks_it_for_an_answer_is_told(
    tmp_path: Path, tiny_model: Path, command: Command, tuning: str
) -> None:
    run = train_rewarded(tmp_path, tiny_model, tuning={"kind": tuning})
    with pytest.raises(ModelError, match="it scores answers and gives none"):
        load_chat_model(run.name)
    assert load_chat_model(run.name, base_only=True)
    out = ("--to", str(tmp_path / "out"), "--format", "adapter")
    for words in (("chat", run.name), ("export", run.name, *out)):
        told = command(*words)
        assert told.code == 2
        assert "it scores answers and gives none" in " ".join(told.err.split())
    assert not (tmp_path / "out").exists()
    assert command("evaluate", run.name).code == 0


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_is_exported_with_its_head(
    tmp_path: Path, tiny_model: Path, command: Command, tuning: str
) -> None:
    run = train_rewarded(tmp_path, tiny_model, tuning={"kind": tuning})
    tuned = load_reward_model(find_subject(run.name))
    out = tmp_path / "out"
    told = command("export", run.name, "--to", out, "--precision", "fp32")
    assert told.code == 0, told.err
    assert "same scores" in told.out
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(str(out))
    assert theirs.config.num_labels == 1
    written = load_reward_model(find_subject(out))
    for number in range(3):
        asked = conversation(number, "chosen")
        assert score(written, asked) == pytest.approx(score(tuned, asked), abs=1e-5)
    cast = command("export", run.name, "--to", tmp_path / "cast", "--precision", "fp16")
    assert cast.code == 0, cast.err


def test_a_head_that_scores_otherwise_is_not_published(
    tmp_path: Path, tiny_model: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train_rewarded(tmp_path, tiny_model)
    merge = reward.merge

    def merge_badly(tuned: Any) -> Any:
        merged = merge(tuned)
        with torch.no_grad():
            merged.score.weight.mul_(-3)
        return merged

    monkeypatch.setattr(reward, "merge", merge_badly)
    told = command("export", run.name, "--to", tmp_path / "out")
    assert told.code == 2
    assert "the model moves too far from the tuned one" in " ".join(told.err.split())
    assert not (tmp_path / "out").exists()


def test_a_reward_model_is_learned_on(tmp_path: Path, tiny_model: Path) -> None:
    first = train_rewarded(tmp_path, tiny_model, tuning={"kind": "full"})
    second = train_rewarded(tmp_path, first.model, run={"steps": 1})
    known = load_file(first.model / "model.safetensors")["score.weight"]
    (found,) = (value for name, value in tiny.weights(second).items() if "score" in name)
    assert float((found - known).abs().max()) <= 0.011  # one step away from where it ended
    with pytest.raises(ModelError, match="this is a reward model"):
        train_pairs(tmp_path, first.model)


def test_rows_below_each_other_teach_it_too(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", "bloom", pad_token_id=None)
    run = train_rewarded(tmp_path, model, tuning={"kind": "full"})
    assert [r["rewards_accuracy"] for r in run.metrics() if "loss" in r][-1] == 1.0
    assert json.loads((run.model / "config.json").read_text("utf-8"))["pad_token_id"] == 0


def test_what_is_no_reward_model_and_what_is_no_answer_is_refused(
    tmp_path: Path, tiny_model: Path
) -> None:
    with pytest.raises(ModelError, match="this is no reward model"):
        load_reward_model(find_subject(tiny_model))
    run = train_rewarded(tmp_path, tiny_model, run={"steps": 1})
    model = load_reward_model(find_subject(run.name))
    with pytest.raises(DataError, match="ends without an answer"):
        score(model, conversation(0, "chosen")[:1])
    with pytest.raises(RecipeError, match=r"evaluate\.sample_rows has no effect"):
        train_rewarded(tmp_path, tiny_model, evaluate={"sample_rows": 2})


@pytest.mark.parametrize(
    ("method", "ways"),
    [
        ("sft", {"chat", "evaluate", "export", "serve"}),
        ("classify", {"classify", "evaluate", "export"}),
        ("reward", {"evaluate", "export"}),
    ],
)
def test_what_to_type_next_is_what_such_a_model_can_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, ways: set[str]
) -> None:
    given = {"method": {"name": method}, "evaluate": {"sample_rows": 0, "sample_tokens": 64}}
    recipe = load_recipe(tiny.write_recipe(tmp_path / "r.json", "starter", "rows.jsonl", **given))
    run = create_run(recipe)
    run.write_status(state="done", message="")
    show_end(run)
    assert set(re.findall(r"tunesmith (\w+) ", capsys.readouterr().out)) == ways
