"""Our preference losses and their gradients equal those of TRL on the same pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.golden.pairs import (
    DUMMY,
    PAIRS,
    QUIET,
    as_trl,
    check_same,
    gradients,
    learn_once,
    make_models,
    make_rows,
    moved,
    one_by_one,
)
from tunesmith.methods import build_method
from tunesmith.models.reader import find_reader
from tunesmith.recipe.method import DPO

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

SLOW = pytest.mark.proof


def make_trainer(tmp_path: Path, base: Any, model: Any, tuning: str, **options: Any) -> Any:
    datasets = pytest.importorskip("datasets")
    from trl import DPOConfig, DPOTrainer

    given = {"beta": 0.3, "per_device_train_batch_size": len(PAIRS), **options}
    trainer = DPOTrainer(
        model,
        ref_model=base if tuning == "full" else None,
        args=DPOConfig(output_dir=str(tmp_path / "trl"), **QUIET, **given),
        train_dataset=datasets.Dataset.from_list(DUMMY),
        processing_class=find_reader(tmp_path / "model").tokenizer,
    )
    moved(trainer.model, "default" if tuning == "lora" else "")
    return trainer


@pytest.mark.parametrize("shape", ["qwen3", "llama", "gemma2"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_dpo_equals_trl_in_loss_and_in_every_gradient(
    tmp_path: Path, tuning: str, shape: str
) -> None:
    folder = tiny.make_model(tmp_path / "model", shape)
    made = make_rows(tmp_path, folder)
    rows = [made[row] for row in range(len(made))]
    base, mine, theirs = make_models(folder, tuning)
    loss, measures, found = learn_once(build_method(DPO(beta=0.3)), mine, rows, tuning)
    trainer = make_trainer(tmp_path, base, theirs, tuning)
    expected = trainer.compute_loss(trainer.model, trainer.data_collator(as_trl(rows)))
    expected.backward()
    assert abs(float(loss) - 0.6931) > 1e-3
    check_same((loss, found), (expected.detach(), gradients(trainer.model)))
    (watched,) = (found for found in trainer._metrics.values() if found["rewards/margins"])
    assert measures["rewards_margin"] == pytest.approx(watched["rewards/margins"][0], abs=1e-5)
    assert measures["rewards_accuracy"] == pytest.approx(watched["rewards/accuracies"][0])


SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hinge": ({"loss": "hinge"}, {"loss_type": ["hinge"]}),
    "ipo": ({"loss": "ipo"}, {"loss_type": ["ipo"]}),
    "robust": (
        {"loss": "robust", "label_smoothing": 0.2},
        {"loss_type": ["robust"], "label_smoothing": 0.2},
    ),
    # of a single pair, the only one that smooths the sigmoid
    "cautious": ({"label_smoothing": 0.2}, {"loss_type": ["aot"], "label_smoothing": 0.2}),
    "a token": ({"length_normalize": True}, {"loss_type": ["sigmoid_norm"]}),
    "with sft": (
        {"sft_weight": 0.7},
        {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.7]},
    ),
    "hinge with sft": (
        {"loss": "hinge", "sft_weight": 0.7},
        {"loss_type": ["hinge", "sft"], "loss_weights": [1.0, 0.7]},
    ),
    "ipo with sft": (
        {"loss": "ipo", "sft_weight": 0.7},
        {"loss_type": ["ipo", "sft"], "loss_weights": [1.0, 0.7]},
    ),
    "robust with sft": (
        {"loss": "robust", "label_smoothing": 0.2, "sft_weight": 0.7},
        {"loss_type": ["robust", "sft"], "label_smoothing": 0.2, "loss_weights": [1.0, 0.7]},
    ),
    "cautious with sft": (
        {"label_smoothing": 0.2, "sft_weight": 0.7},
        {"loss_type": ["aot", "sft"], "label_smoothing": 0.2, "loss_weights": [1.0, 0.7]},
    ),
    "a token with sft": (
        {"length_normalize": True, "sft_weight": 0.7},
        {"loss_type": ["sigmoid_norm", "sft"], "loss_weights": [1.0, 0.7]},
    ),
    "no reference": ({"reference": "none"}, {"loss_type": ["sigmoid"]}),
    "no reference, ipo": ({"reference": "none", "loss": "ipo"}, {"loss_type": ["ipo"]}),
}
SIMPLE = ("hinge", "ipo", "robust", "cautious", "a token", "with sft", "no reference")
"""What `make test` runs; the rest is put together of it."""


@pytest.mark.parametrize(
    ("tuning", "name"),
    [
        pytest.param(
            *(tuning, name), marks=() if (tuning, name in SIMPLE) == ("full", True) else SLOW
        )
        for tuning in ("full", "lora")
        for name in SAME
    ],
)
def test_every_loss_of_dpo_equals_that_of_trl(tmp_path: Path, name: str, tuning: str) -> None:
    """TRL is given one pair at a time: a mean over all tokens is then one over an answer's."""
    ours, options = SAME[name]
    folder = tiny.make_model(tmp_path / "model", "qwen3")
    made = make_rows(tmp_path, folder)
    rows = [made[row] for row in range(len(made))]
    base, mine, theirs = make_models(folder, tuning)
    loss, _, found = learn_once(build_method(DPO(beta=0.3, **ours)), mine, rows, tuning)
    trainer = make_trainer(tmp_path, base, theirs, tuning, **options)
    told: dict[str, Any] = {}
    if ours.get("reference") == "none":  # one that says the same of all answers
        trainer.precompute_ref_logps = True
        told = {"ref_chosen_logps": 0.0, "ref_rejected_logps": 0.0}

    def loss_of(row: dict[str, Any]) -> Any:
        (given,) = as_trl([row])
        return trainer.compute_loss(trainer.model, trainer.data_collator([{**given, **told}]))

    check_same((loss, found), one_by_one(loss_of, rows, trainer.model))


LEVEL: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "hinge": SAME["hinge"],
    "robust": SAME["robust"],
    "cautious": SAME["cautious"],
}


@SLOW
@pytest.mark.parametrize("name", LEVEL)
def test_losses_a_token_equal_those_of_trl_on_answers_of_one_length(
    tmp_path: Path, name: str
) -> None:
    """TRL counts a token in its sigmoid only; where lengths are alike, beta does the same."""
    ours, options = LEVEL[name]
    folder = tiny.make_model(tmp_path / "model", "qwen3")
    made = make_rows(tmp_path, folder)
    rows = [_cut_longer(made[row]) for row in range(len(made))]
    assert len({length_of(row) for row in rows}) > 1
    base, mine, theirs = make_models(folder, "full")
    method = build_method(DPO(beta=0.3, length_normalize=True, **ours))
    loss, _, found = learn_once(method, mine, rows, "full")
    trainer = make_trainer(tmp_path, base, theirs, "full", **options)

    def loss_of(row: dict[str, Any]) -> Any:
        trainer.beta = 0.3 / length_of(row)
        return trainer.compute_loss(trainer.model, trainer.data_collator(as_trl([row])))

    check_same((loss, found), one_by_one(loss_of, rows, trainer.model))


def length_of(row: dict[str, Any]) -> int:
    first, second = row["answers"]
    return int(second - first)


def _cut_longer(row: dict[str, Any]) -> dict[str, Any]:
    """Cut both answers to as many tokens."""
    first, second = row["answers"]
    length = min(second - first, len(row["input_ids"]) - second)
    kept = [*range(first + length), *range(second, second + length)]
    cut = {name: [row[name][at] for at in kept] for name in ("input_ids", "labels")}
    return {**row, **cut, "answers": [first, first + length]}
