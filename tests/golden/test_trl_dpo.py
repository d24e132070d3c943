"""Our preference loss and its gradients equal those of TRL on the same pairs."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.data.prepare import prepare
from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import TokenRows
from tunesmith.methods import build_method
from tunesmith.methods.method import Joining
from tunesmith.methods.reference import reference_logps
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.data import Data, Source
from tunesmith.recipe.method import DPO
from tunesmith.recipe.tuning import LoRA

PAIRS = [
    {
        "instruction": f"question {n}",
        "input": " more" * n,
        "chosen": f"It is {n * 7}." + " word" * (n % 4),
        "rejected": "the lazy dog" + " jumps" * (n % 3),
    }
    for n in range(6)
]
HOW = Joining(flat=True)


def make_rows(tmp_path: Path, folder: Path) -> TokenRows:
    reader = find_reader(folder)
    data = Data(train=(Source(path=str(tiny.write_rows(tmp_path / "pairs.jsonl", PAIRS))),))
    learn = Learn("preference", history=False)
    return prepare(data, learn, reader.tokenizer, reader.template, seed=0).train


def as_trl(rows: TokenRows) -> list[dict[str, list[int]]]:
    """The same tokens as TRL's collator takes them."""
    made = []
    for number in range(len(rows)):
        row = rows[number]
        first, second = row["answers"]
        ids = row["input_ids"]
        made.append(
            {
                "prompt_ids": ids[:first],
                "chosen_ids": ids[first:second],
                "rejected_ids": ids[second:],
            }
        )
    return made


def moved(model: Any, part: str) -> None:
    """Move weights, so that the policy is not the reference any more."""
    draw = torch.Generator().manual_seed(3)
    for name, weight in model.named_parameters():
        if part in name:
            weight.data += 0.05 * torch.randn(weight.shape, generator=draw)


@pytest.mark.parametrize("shape", ["qwen3", "llama", "gemma2"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_dpo_equals_trl_in_loss_and_in_every_gradient(
    tmp_path: Path, tuning: str, shape: str
) -> None:
    datasets = pytest.importorskip("datasets")
    from trl import DPOConfig, DPOTrainer

    folder = tiny.make_model(tmp_path / "model", shape)
    rows = make_rows(tmp_path, folder)
    base = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    mine, theirs = copy.deepcopy(base), copy.deepcopy(base)
    options = LoRA(rank=2, targets=("q_proj", "down_proj"))
    if tuning == "lora":
        mine, theirs = add_lora(mine, options), add_lora(theirs, options)
        theirs.load_state_dict(mine.state_dict())
    method = build_method(DPO(beta=0.3))
    reference = reference_logps(mine, method, rows, how=HOW, tokens=50)
    assert reference is not None
    part = "lora_" if tuning == "lora" else ""
    moved(mine, part)
    referenced = rows.beside(reference=reference)
    batch = method.collate([referenced[row] for row in range(len(rows))], HOW)
    summed = method.loss(mine, batch)
    (summed.total / summed.count).backward()

    config = DPOConfig(
        output_dir=str(tmp_path / "trl"),
        beta=0.3,
        bf16=False,
        use_cpu=True,
        report_to="none",
        per_device_train_batch_size=len(PAIRS),
        gradient_checkpointing=False,
        disable_dropout=False,
    )
    trainer = DPOTrainer(
        theirs,
        ref_model=base if tuning == "full" else None,
        args=config,
        train_dataset=datasets.Dataset.from_list(
            [{"prompt": "a", "chosen": "b", "rejected": "c"}] * len(PAIRS)
        ),
        processing_class=find_reader(folder).tokenizer,
    )
    moved(trainer.model, "default" if tuning == "lora" else "")
    loss = trainer.compute_loss(trainer.model, trainer.data_collator(as_trl(rows)))
    loss.backward()

    assert summed.count == len(PAIRS)
    torch.testing.assert_close(summed.total / summed.count, loss, rtol=1e-6, atol=1e-7)
    assert abs(float(loss) - 0.6931) > 1e-3
    expected = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    found = {name: p.grad for name, p in mine.named_parameters() if p.grad is not None}
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        differs = torch.linalg.vector_norm(found[name] - one)
        assert differs <= 1e-5 * torch.linalg.vector_norm(one), name
    (watched,) = (found for found in trainer._metrics.values() if found["rewards/margins"])
    margin = float(summed.measures["rewards_margin"]) / summed.count
    assert margin == pytest.approx(watched["rewards/margins"][0], abs=1e-5)
