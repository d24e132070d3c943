"""Learn from a teacher, or stay near what was there: from files to a model that does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.pipelines.test_going_on import stop_at
from tunesmith.errors import ModelError, RecipeError, RunError, TunesmithError
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.models.chat import find_subject
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.runs.store import create_run
from tunesmith.training.footprint import measure_footprint
from tunesmith.training.train import resume, train

ASKED: dict[str, Any] = {"data": {"validation_share": 0.2}, "run": {"name": "tiny", "steps": 12}}


def train_teacher(tmp_path: Path, kind: str) -> Run:
    """Let a larger model learn the answers."""
    larger = tiny.make_model(tmp_path / "larger", "llama", seed=5, hidden_size=64, vocab_size=416)
    run = {"name": "teacher", "steps": 30}
    return tiny.train_run(tmp_path / "t", larger, tuning={"kind": kind}, run=run)


def of_measure(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


@pytest.mark.parametrize(
    ("tuning", "taught_by", "beta"), [("lora", "full", 0.0), ("full", "lora", 0.5)]
)
def test_a_student_comes_nearer_to_a_run_that_teaches(
    tmp_path: Path, tiny_model: Path, tuning: str, taught_by: str, beta: float
) -> None:
    teacher = train_teacher(tmp_path, taught_by)
    before = weights_sha256(teacher.model)
    method = {"name": "distill", "teacher": teacher.name, "teacher_weight": 1.0, "beta": beta}
    run = tiny.train_run(
        tmp_path,
        tiny_model,
        method=method,
        tuning={"kind": tuning},
        evaluate={"every_steps": 4},
        **ASKED,
    )
    far = of_measure(run, "eval_divergence")
    assert far[-1] < 0.98 * far[0]
    assert of_measure(run, "loss")[0] == pytest.approx(of_measure(run, "divergence")[0])
    assert weights_sha256(teacher.model) == before
    scores = evaluate(run.name)
    assert scores.tuned.loss == pytest.approx(of_measure(run, "eval_loss")[-1], rel=1e-3)
    assert scores.base is not None
    assert scores.tuned.loss < scores.base.loss


METHODS: dict[str, dict[str, Any]] = {
    "dft": {"name": "sft", "loss": "dft"},
    "eaft": {"name": "sft", "loss": "eaft", "neftune_alpha": 5.0},
    "asft": {"name": "sft", "loss": "asft", "learn_prompts": True, "neftune_alpha": 5.0},
    "distill": {"name": "distill", "temperature": 2.0},
}


@pytest.mark.parametrize(
    ("name", "tuning"),
    [
        ("dft", {"kind": "full"}),
        ("eaft", {"kind": "lora"}),
        ("asft", {"kind": "lora", "dropout": 0.1}),
        ("asft", {"kind": "full"}),
        ("distill", {"kind": "lora"}),
    ],
)
def test_a_stopped_run_goes_on_to_the_same_weights(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, name: str, tuning: Any
) -> None:
    method = dict(METHODS[name])
    if name == "distill":
        method["teacher"] = str(tiny.make_model(tmp_path / "larger", seed=5, hidden_size=64))
    asked = {"method": method, "tuning": tuning, "run": {"name": "tiny", "steps": 6}}
    whole = tiny.weights(tiny.train_run(tmp_path, tiny_model, **asked))
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        run = tiny.train_run(tmp_path, tiny_model, **asked)
    assert (run.status().state, run.status().step) == ("stopped", 3)
    again = tiny.weights(resume(Run(run.path)))
    assert all(torch.equal(again[name], one) for name, one in whole.items())


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_an_anchor_keeps_a_model_near_what_it_was(
    tmp_path: Path, tiny_model: Path, kind: str
) -> None:
    gone = {}
    for weight in (0.01, 10.0):
        method = {"name": "sft", "loss": "asft", "anchor_weight": weight}
        run = tiny.train_run(tmp_path, tiny_model, method=method, tuning={"kind": kind})
        far = of_measure(run, "divergence")
        assert far[0] == pytest.approx(0.0, abs=1e-6)
        gone[weight] = far[-1]
    assert 0.0 < gone[10.0] < 0.5 * gone[0.01]


def test_an_anchor_is_the_model_that_training_begins_on(tmp_path: Path, tiny_model: Path) -> None:
    first = tiny.train_run(tmp_path, tiny_model, run={"name": "first", "steps": 4})
    beneath = {"adapters": ["first"], "rope_scaling": {"kind": "linear", "factor": 2.0}}
    method = {"name": "sft", "loss": "asft", "anchor_weight": 10.0}
    run = tiny.train_run(
        tmp_path,
        tiny_model,
        method=method,
        tuning={"kind": "full"},
        model=beneath,
        run={"name": "anchored", "steps": 2},
    )
    assert of_measure(run, "divergence")[0] == pytest.approx(0.0, abs=1e-6)
    create_run(run.recipe().model_copy(update={"run": first.recipe().run}))  # called the same
    assert find_subject(run.path, base_only=True).beneath.merged == (first.model,)


def test_padded_rows_are_compared_as_well_as_flat_ones(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "model", "bloom")
    method = {"name": "distill", "teacher": str(tiny.make_model(tmp_path / "larger", seed=5))}
    other = {"name": "distill", "teacher": str(model)}
    padded_student = tiny.train_run(tmp_path, model, method=method)
    padded_teacher = tiny.train_run(tmp_path, tmp_path / "larger", method=other)
    for run in (padded_student, padded_teacher):
        assert run.status().state == "done"
        assert of_measure(run, "loss")[-1] < of_measure(run, "loss")[0]


def _other_words(folder: Path) -> str:
    model = tiny.make_model(folder / "other")
    content = json.loads((model / "tokenizer.json").read_text("utf-8"))
    vocab = content["model"]["vocab"]
    one, other = list(vocab)[50:52]
    vocab[one], vocab[other] = vocab[other], vocab[one]
    (model / "tokenizer.json").write_text(json.dumps(content), "utf-8")
    return str(model)


def _short(folder: Path) -> str:
    return str(tiny.make_model(folder / "short", max_position_embeddings=16))


def _reward(folder: Path) -> str:
    data = tiny.write_rows(
        folder / "pairs.jsonl",
        [{"instruction": f"{n}", "chosen": "yes", "rejected": "no"} for n in range(8)],
    )
    model = tiny.make_model(folder / "scored")
    recipe = tiny.write_recipe(
        folder / "reward.json",
        model,
        data,
        method={"name": "reward"},
        tuning={"kind": "full"},
        evaluate={},
        run={"steps": 1},
    )
    content = json.loads(recipe.read_text("utf-8"))
    del content["evaluate"]
    recipe.write_text(json.dumps(content), "utf-8")
    return str(train(load_recipe(recipe)).path)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (_other_words, "another vocabulary"),
        (_short, "the model takes 16"),
        (_reward, "reward model"),
        (lambda _: "nothing-here", "nothing-here"),
    ],
    ids=["vocabulary", "length", "reward", "missing"],
)
def test_a_teacher_that_cannot_teach_is_refused(
    tmp_path: Path, tiny_model: Path, make: Callable[[Path], str], says: str
) -> None:
    with pytest.raises(TunesmithError) as caught:
        tiny.train_run(tmp_path, tiny_model, method={"name": "distill", "teacher": make(tmp_path)})
    assert isinstance(caught.value, ModelError | RecipeError)
    assert says in caught.value.message


def test_a_run_does_not_go_on_with_another_teacher(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    larger = tiny.make_model(tmp_path / "larger", seed=5, hidden_size=64)
    with monkeypatch.context() as patch:
        stop_at(patch, 3)
        method = {"name": "distill", "teacher": str(larger)}
        run = tiny.train_run(tmp_path, tiny_model, method=method)
    tiny.make_model(larger, seed=6, hidden_size=64)
    with pytest.raises(RunError, match="teacher_weights"):
        resume(Run(run.path))


def test_the_teacher_counts_in_the_estimate(tmp_path: Path, tiny_model: Path) -> None:
    larger = tiny.make_model(tmp_path / "larger", seed=5, hidden_size=64, num_hidden_layers=8)
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    held = {}
    for name, method in {
        "alone": {"name": "sft"},
        "taught": {"name": "distill", "teacher": str(larger)},
        "anchored": {"name": "sft", "loss": "asft"},
    }.items():
        tuning = {"kind": "full"}
        recipe = tiny.write_recipe(
            tmp_path / "r.json", tiny_model, data, method=method, tuning=tuning
        )
        held[name] = measure_footprint(load_recipe(recipe), tiny_model, 64)
    stored = {
        folder: (folder / "model.safetensors").stat().st_size for folder in (larger, tiny_model)
    }
    libraries = 30 * 1024**2  # what importing costs may move by
    assert held["taught"].held - held["alone"].held == pytest.approx(stored[larger], abs=libraries)
    assert held["taught"].logits[0] > held["alone"].logits[0]
    assert held["anchored"].head_gradient == 2 * held["alone"].head_gradient
