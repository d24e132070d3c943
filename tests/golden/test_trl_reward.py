"""Our reward model's loss and its gradients equal those of TRL on the same pairs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tests.golden.pairs import (
    DUMMY,
    HOW,
    PAIRS,
    QUIET,
    check_same,
    gradients,
    make_rows,
    moved,
    parts,
)
from tunesmith.methods import build_method
from tunesmith.models.load import load_scorer
from tunesmith.models.reader import find_reader
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.method import Reward
from tunesmith.recipe.tuning import LoRA


@pytest.mark.parametrize("shape", ["qwen3", "llama"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_reward_equals_trl_in_loss_and_in_every_gradient(
    tmp_path: Path, tuning: str, shape: str
) -> None:
    datasets = pytest.importorskip("datasets")
    from trl import RewardConfig, RewardTrainer

    folder = tiny.make_model(tmp_path / "model", shape)
    made = make_rows(tmp_path, folder)
    rows = [made[row] for row in range(len(made))]
    mine: Any = load_scorer(folder, dtype=torch.float32, device=torch.device("cpu"), new_head=True)
    theirs: Any = copy.deepcopy(mine)
    if tuning == "lora":
        options = LoRA(rank=2, targets=("q_proj", "down_proj"))
        mine, theirs = add_lora(mine, options), add_lora(theirs, options)
        theirs.load_state_dict(mine.state_dict())
    moved(mine, "default" if tuning == "lora" else "")
    method = build_method(Reward(center_rewards=0.05))
    summed = method.loss(mine, method.collate(rows, HOW))
    loss = summed.total / summed.count
    loss.backward()

    trainer = RewardTrainer(
        theirs,
        args=RewardConfig(
            output_dir=str(tmp_path / "trl"),
            center_rewards_coefficient=0.05,
            per_device_train_batch_size=len(PAIRS),
            **{**QUIET, "disable_dropout": True},
        ),
        train_dataset=datasets.Dataset.from_list(DUMMY),
        processing_class=find_reader(folder).tokenizer,
    )
    moved(trainer.model, "default" if tuning == "lora" else "")
    texts = [parts(row) for row in rows]
    given = trainer.data_collator(
        [{"chosen_ids": asked + one, "rejected_ids": asked + two} for asked, one, two in texts]
    )
    expected = trainer.compute_loss(trainer.model, given)
    expected.backward()

    check_same((loss.detach(), gradients(mine)), (expected.detach(), gradients(trainer.model)))
    (watched,) = (found for found in trainer._metrics.values() if found["margin"])
    for ours, known in (("rewards_margin", "margin"), ("rewards_accuracy", "accuracy")):
        mean = float(summed.measures[ours]) / summed.count
        assert mean == pytest.approx(watched[known][0], rel=1e-4, abs=1e-6)
