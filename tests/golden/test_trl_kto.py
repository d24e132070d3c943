"""Our loss on judged answers, its kl and its gradients equal those of TRL on the same rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tests.golden.pairs import HOW, QUIET, Rows, check_same, gradients, make_models, moved
from tests.unit.methods.test_kto import ROWS, make_rows
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods import build_method
from tunesmith.methods.averages import Averages
from tunesmith.methods.reference import reference_logps
from tunesmith.models.reader import find_reader
from tunesmith.recipe.method import KTO


def as_trl(row: dict[str, Any]) -> dict[str, Any]:
    """The same tokens, another row's answer among them, as TRL's collator takes them."""
    asked = row["labels"].count(UNLEARNED)
    return {
        "prompt_ids": row["input_ids"][:asked],
        "completion_ids": row["input_ids"][asked:],
        "KL_completion_ids": row["mismatched"]["input_ids"][asked:],
        "label": row["good"],
    }


@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_kto_equals_trl_in_loss_kl_and_every_gradient(tmp_path: Path, tuning: str) -> None:
    datasets = pytest.importorskip("datasets")
    from trl import KTOConfig, KTOTrainer

    folder = tiny.make_model(tmp_path / "model", "qwen3")
    made = make_rows(tmp_path, folder)
    rows = [made[row] for row in range(len(made))]
    base, mine, theirs = make_models(folder, tuning)
    method = build_method(KTO(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7))
    known = reference_logps(mine, method, Rows(rows), how=HOW, tokens=50)  # type: ignore[arg-type]
    assert known is not None
    rows = [{**row, "reference": one.tolist()} for row, one in zip(rows, known, strict=True)]
    moved(mine, "lora_" if tuning == "lora" else "")
    batch = method.collate(rows, HOW)
    summed = method.loss(mine, {**batch, **method.look_ahead(mine, [batch])})
    loss = summed.total / summed.count
    loss.backward()

    trainer = KTOTrainer(
        theirs,
        ref_model=base if tuning == "full" else None,
        args=KTOConfig(
            output_dir=str(tmp_path / "trl"),
            beta=0.3,
            desirable_weight=1.2,
            undesirable_weight=0.7,
            per_device_train_batch_size=len(ROWS),
            **QUIET,
        ),
        train_dataset=datasets.Dataset.from_list(ROWS),
        processing_class=find_reader(folder).tokenizer,
    )
    moved(trainer.model, "default" if tuning == "lora" else "")
    given = trainer.data_collator([as_trl(row) for row in rows])
    expected = trainer.compute_loss(trainer.model, given)
    expected.backward()

    check_same((loss.detach(), gradients(mine)), (expected.detach(), gradients(trainer.model)))
    (watched,) = (found for found in trainer._metrics.values() if found["kl"])
    averages = Averages()
    averages.add(summed)
    measures = averages.take()
    for ours, theirs_ in (
        ("kl", "kl"),
        ("rewards_chosen", "rewards/chosen"),
        ("rewards_rejected", "rewards/rejected"),
        ("rewards_margin", "rewards/margins"),
        ("logps_chosen", "logps/chosen"),
        ("logps_rejected", "logps/rejected"),
    ):
        assert measures[ours] == pytest.approx(watched[theirs_][0], rel=1e-4, abs=1e-5), ours
