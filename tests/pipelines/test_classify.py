"""Train a classifier of texts, measure it, ask it, export it, and talk to it in vain."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests import tiny
from tests.command import Command
from tests.pipelines.test_going_on import stop_at
from tests.seeing import make_seeing_model
from tunesmith.cli.show_run import _next_steps
from tunesmith.errors import DataError, ModelError, RecipeError, RunError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.export.export import export
from tunesmith.inference.classify import classify, scores_of
from tunesmith.models.chat import find_subject, load_chat_model, load_reward_model
from tunesmith.models.classes import load_classifier
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.samples import read_samples
from tunesmith.training.train import resume, train

WORDS = {"food": "burger fries", "hours": "早上 九点", "zoo": "fox dog"}
ROWS = [
    {"text": f"{n} is {words}", "label": label} for n in range(16) for label, words in WORDS.items()
]


def train_classes(folder: Path, model: Path, /, rows: list[Any] = ROWS, **sections: Any) -> Run:
    data = tiny.write_rows(folder / "rows.jsonl", rows)
    usual: dict[str, Any] = {
        "data": {"validation_share": 0.25},
        "method": {"name": "classify"},
        "evaluate": {"sample_rows": 3, "sample_tokens": 64},
        "run": {"steps": 16},
    }
    sections = {
        name: {**usual.get(name, {}), **sections.get(name, {})} for name in {*usual, *sections}
    }
    return train(load_recipe(tiny.write_recipe(folder / "recipe.json", model, data, **sections)))


@pytest.mark.parametrize(
    "tuning", ["lora", "full", pytest.param("freeze", marks=pytest.mark.proof)]
)
def test_it_comes_to_name_classes_and_its_export_scores_alike_elsewhere(
    tmp_path: Path, tiny_model: Path, command: Command, tuning: str
) -> None:
    run = train_classes(tmp_path, tiny_model, tuning={"kind": tuning})
    measured = [record for record in run.metrics() if "eval_loss" in record]
    assert measured[-1]["eval_accuracy"] == measured[-1]["eval_macro_f1"] == 1.0
    assert read_samples(run) == []

    scores = evaluate(run.name)
    assert (scores.base, scores.answers) == (None, [])
    assert (scores.tuned.accuracy, scores.tuned.macro_f1) == (1.0, 1.0)
    assert scores.tuned.loss == pytest.approx(measured[-1]["eval_loss"], rel=1e-3)
    assert scores.classes is not None
    assert scores.classes.labels == ["food", "hours", "zoo"]
    assert sum(map(sum, scores.classes.counts)) == scores.num_rows == 12
    assert json.loads(run.scores_file.read_bytes())["classes"]["counts"] == scores.classes.counts

    model = load_classifier(find_subject(run.name))
    named = [next(iter(shares)) for shares in classify(model, [row["text"] for row in ROWS])]
    assert named == [row["label"] for row in ROWS]

    done = export(run.name, tmp_path / "out")
    assert (done.distance.top1, done.distance.max_logit_difference < 1e-4) == (1.0, True)
    theirs: Any = AutoModelForSequenceClassification.from_pretrained(str(tmp_path / "out"))
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "out"))
    assert theirs.config.id2label == {0: "food", 1: "hours", 2: "zoo"}
    texts = [row["text"] for row in ROWS[:6]]
    with torch.no_grad():
        logits = theirs(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    ours = torch.stack([scores_of(model, text) for text in texts])
    torch.testing.assert_close(logits, ours, rtol=1e-4, atol=1e-5)

    told = command("classify", str(tmp_path / "out"), texts[0], "--top", "2")
    assert told.code == 0
    assert "food" in told.out
    shown = command("evaluate", run.name)
    assert "macro-F1" in shown.out
    assert "rows of each class" in shown.out


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_whoever_asks_it_for_an_answer_is_told(
    tmp_path: Path, tiny_model: Path, command: Command, tuning: str
) -> None:
    run = train_classes(tmp_path, tiny_model, tuning={"kind": tuning}, run={"steps": 1})
    with pytest.raises(ModelError, match="this is a classifier"):
        load_chat_model(run.name)
    with pytest.raises(ModelError, match="this is no reward model"):
        load_reward_model(find_subject(run.name))
    steps = _next_steps(run)
    assert steps.keys() == {"look", "name", "measure", "export"}
    assert steps["name"] == f"tunesmith classify {run.name} INPUT"
    for words in (("chat", run.name), ("serve", run.name)):
        told = command(*words)
        assert told.code == 2
        assert "tunesmith classify" in " ".join(told.err.split())
    with pytest.raises(ModelError, match="this is no classifier"):
        load_classifier(find_subject(tiny_model))
    with pytest.raises(RunError, match="--max-rows has no effect"):
        evaluate(run.name, max_rows=3)


def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tiny.weights(train_classes(tmp_path, tiny_model, run={"steps": 8}))
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        run = train_classes(tmp_path, tiny_model, run={"steps": 8})
    assert run.status().step == 5
    again = tiny.weights(resume(Run(run.path)))
    assert again.keys() == expected.keys()
    assert all(torch.equal(again[name], one) for name, one in expected.items())


def test_a_classifier_is_learned_on_and_keeps_its_head_where_the_labels_are_its(
    tmp_path: Path, tiny_model: Path
) -> None:
    first = train_classes(tmp_path, tiny_model, tuning={"kind": "full"}, run={"steps": 2})
    head = tiny.weights(first)["score.weight"]
    some = [row for row in ROWS if row["label"] != "hours"]
    again = {"tuning": {"kind": "full"}, "run": {"steps": 1}, "optimizer": {"learning_rate": 1e-4}}
    second = tiny.weights(train_classes(tmp_path, first.model, some, **again))["score.weight"]
    assert float((second - head).abs().max()) <= 2e-4
    assert second.shape == (3, 32)
    others = [{**row, "label": f"new {row['label']}"} for row in some]
    third = train_classes(tmp_path, first.model, others, **again)
    assert tiny.weights(third)["score.weight"].shape == (2, 32)


def test_labels_are_as_named_and_others_refused(tmp_path: Path, tiny_model: Path) -> None:
    named = {"name": "classify", "labels": ["zoo", "food", "hours"]}
    run = train_classes(tmp_path, tiny_model, method=named, run={"steps": 1})
    assert load_classifier(find_subject(run.name)).labels == ("zoo", "food", "hours")
    numbers = [{"words": row["text"], "kind": 10 if row["label"] == "zoo" else 9} for row in ROWS]
    source = {"path": str(tmp_path / "rows.jsonl"), "columns": {"text": "words", "label": "kind"}}
    run = train_classes(tmp_path, tiny_model, numbers, data={"train": [source]}, run={"steps": 1})
    assert load_classifier(find_subject(run.name)).labels == ("9", "10")
    with pytest.raises(DataError, match="the label 'zoo' is none of the 2 that are learned"):
        train_classes(tmp_path, tiny_model, method={**named, "labels": ["food", "hours"]})
    with pytest.raises(DataError, match="all rows have the same label"):
        train_classes(tmp_path, tiny_model, [row for row in ROWS if row["label"] == "zoo"])


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"evaluate": {"sample_rows": 2}}, r"evaluate\.sample_rows has no effect"),
        ({"data": {"system": "be nice"}}, r"data\.system has no effect"),
        ({"model": {"template": "chatml"}}, r"model\.template has no effect"),
        ({"model": {"quantize": {"kind": "nf4"}}}, "a classifier is not trained on a quantized"),
        ({"method": {"labels": ["a", "a"]}}, r"method\.labels needs two labels"),
        ({"method": {"labels": ["a"]}}, r"method\.labels needs two labels"),
    ],
)
def test_what_would_have_no_effect_is_refused(
    tmp_path: Path, tiny_model: Path, sections: dict[str, Any], named: str
) -> None:
    with pytest.raises(RecipeError, match=named):
        train_classes(tmp_path, tiny_model, **sections)


def test_rows_of_another_kind_are_told_apart(tmp_path: Path, tiny_model: Path) -> None:
    asked = [{"instruction": "who?", "output": "me"}] * 4
    with pytest.raises(DataError, match="classify learns from labelled texts"):
        train_classes(tmp_path, tiny_model, asked)
    with pytest.raises(DataError, match="pretrain learns from plain texts") as caught:
        train_classes(tmp_path, tiny_model, method={"name": "pretrain"}, evaluate={})
    assert "format: text" in caught.value.hint


def test_a_model_that_sees_gets_no_head_and_no_image_is_left_out(
    tmp_path: Path, tiny_model: Path
) -> None:
    seeing = make_seeing_model(tmp_path / "seeing")
    with pytest.raises(ModelError, match="'llava', which takes more than text") as caught:
        train_classes(tmp_path, seeing)
    assert "method.name: sft" in caught.value.hint
    shown = [{**row, "images": ["a.png"]} for row in ROWS]
    with pytest.raises(DataError, match="it holds `images`, which is not learned here"):
        train_classes(tmp_path, tiny_model, shown)
    pictures = [{"image_path": "a.png", "label": row["label"]} for row in ROWS]
    with pytest.raises(DataError, match="labelled images") as caught_rows:
        train_classes(tmp_path, seeing, pictures)
    assert "method.name: sft" in caught_rows.value.hint
