"""Our losses without a reference, and their gradients, equal those of TRL on the same pairs."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.golden.pairs import (
    DUMMY,
    PAIRS,
    QUIET,
    check_same,
    learn_once,
    make_models,
    make_rows,
    moved,
    one_by_one,
    parts,
)
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods import build_method
from tunesmith.models.reader import find_reader
from tunesmith.recipe.method import CPO, ORPO, SimPO

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SAME: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "orpo": (ORPO(beta=0.3), "ORPO", {"beta": 0.3}),
    "simpo": (
        SimPO(beta=2.5, gamma=1.2),
        "CPO",
        {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.5, "simpo_gamma": 1.2},
    ),
    "cpo": (CPO(beta=0.3), "CPO", {"beta": 0.3}),
    "cpo, cautious": (
        CPO(beta=0.3, label_smoothing=0.2, sft_weight=0.4),
        "CPO",
        {"beta": 0.3, "label_smoothing": 0.2, "cpo_alpha": 0.4},
    ),
}


def as_batch(row: dict[str, Any]) -> dict[str, torch.Tensor]:
    """One pair as TRL's older collator gives it."""
    asked, chosen, rejected = parts(row)
    found = {}
    for name, answer in (("chosen", chosen), ("rejected", rejected)):
        found[f"{name}_input_ids"] = torch.tensor([asked + answer])
        found[f"{name}_attention_mask"] = torch.ones(1, len(asked + answer), dtype=torch.long)
        found[f"{name}_labels"] = torch.tensor([[UNLEARNED] * len(asked) + answer])
    return found


@pytest.mark.parametrize("tuning", ["full", pytest.param("lora", marks=pytest.mark.proof)])
@pytest.mark.parametrize("name", SAME)
def test_loss_and_every_gradient_equal_trl(tmp_path: Path, name: str, tuning: str) -> None:
    """TRL is given one pair at a time: a mean over all tokens is then one over an answer's."""
    datasets = pytest.importorskip("datasets")
    options, trainer_name, given = SAME[name]
    module = importlib.import_module(f"trl.experimental.{trainer_name.lower()}")
    folder = tiny.make_model(tmp_path / "model", "qwen3")
    made = make_rows(tmp_path, folder)
    rows = [made[row] for row in range(len(made))]
    if name == "orpo":
        rows = [_ask_one_token(row) for row in rows]
    _, mine, theirs = make_models(folder, tuning)
    loss, measures, found = learn_once(build_method(options), mine, rows, tuning)
    trainer = vars(module)[f"{trainer_name}Trainer"](
        theirs,
        args=vars(module)[f"{trainer_name}Config"](
            output_dir=str(tmp_path / "trl"),
            per_device_train_batch_size=len(PAIRS),
            **QUIET,
            **given,
        ),
        train_dataset=datasets.Dataset.from_list(DUMMY),
        processing_class=find_reader(folder).tokenizer,
    )
    moved(trainer.model, "default" if tuning == "lora" else "")
    watched: list[dict[str, float]] = []

    def loss_of(row: dict[str, Any]) -> torch.Tensor:
        counted, metrics = trainer.get_batch_loss_metrics(trainer.model, as_batch(row))
        watched.append(metrics)
        assert isinstance(counted, torch.Tensor)
        return counted

    check_same((loss, found), one_by_one(loss_of, rows, trainer.model))
    for ours, known in (
        ("rewards_chosen", "rewards/chosen"),
        ("rewards_rejected", "rewards/rejected"),
        ("rewards_margin", "rewards/margins"),
        ("rewards_accuracy", "rewards/accuracies"),
        ("sft_loss", "nll_loss"),
        ("log_odds_ratio", "log_odds_chosen"),
    ):
        if ours in measures:
            mean = sum(metrics[known] for metrics in watched) / len(rows)
            assert measures[ours] == pytest.approx(mean, rel=1e-4)


def _ask_one_token(row: dict[str, Any]) -> dict[str, Any]:
    """Shorten the question to one token, which nobody learns: TRL's orpo learns questions too."""
    first, second = row["answers"]
    cut = {name: row[name][first - 1 :] for name in ("input_ids", "labels")}
    return {**cut, "answers": [1, second - first + 1]}
