"""On a GPU pairs are learned as on a processor, in fp32 and in 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods import build_method
from tunesmith.methods.batches import to_device
from tunesmith.methods.method import Joining
from tunesmith.models.load import load_model
from tunesmith.recipe.load import load_recipe
from tunesmith.recipe.method import DPO
from tunesmith.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
METHOD = build_method(DPO())
SIZES = ((40, 30, 70), (3, 90, 20), (120, 9, 60))
ROWS = [
    {"instruction": f"question {n}", "chosen": f"It is {n * 7}.", "rejected": "the lazy dog"}
    for n in range(24)
]


def pairs() -> list[dict[str, Any]]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for question, chosen, rejected in SIZES:
        ids = torch.randint(1, 400, (question + chosen + rejected,), generator=draw).tolist()
        labels = [UNLEARNED] * question + ids[question:]
        answers = [question, question + chosen]
        made.append(
            {"input_ids": ids, "labels": labels, "answers": answers, "reference": [-9.0, -8.0]}
        )
    return made


def learned(folder: Path, device: str, dtype: torch.dtype, *, flat: bool) -> Any:
    model = load_model(folder, dtype=torch.float32, device=torch.device(device)).train()
    batch = to_device(METHOD.collate(pairs(), Joining(flat=flat)), torch.device(device))
    with torch.autocast(device, torch.bfloat16, enabled=dtype == torch.bfloat16):
        total = METHOD.loss(model, batch).total
    total.backward()
    return total.item(), torch.cat([p.grad.cpu().flatten() for p in model.parameters()])


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", ["qwen3", "gemma2"])
def test_loss_and_gradient_are_those_of_the_processor(
    tmp_path: Path, shape: str, dtype: torch.dtype, flat: bool
) -> None:
    folder = tiny.make_model(tmp_path / shape, shape, head_dim=64)
    expected, exact = learned(folder, "cpu", torch.float32, flat=False)
    loss, gradient = learned(folder, "cuda", dtype, flat=flat)
    share = 1e-4 if dtype == torch.float32 else 5e-2
    assert loss == pytest.approx(expected, rel=share)
    assert (gradient - exact).norm() < share * exact.norm()


def test_a_run_comes_to_prefer_what_was_chosen(tmp_path: Path, tiny_model: Path) -> None:
    data = tiny.write_rows(tmp_path / "pairs.jsonl", ROWS)
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        tiny_model,
        data,
        method={"name": "dpo"},
        compute={"device": "cuda", "precision": "bf16"},
        run={"name": "tiny", "steps": 12, "log_every_steps": 3},
    )
    records = [record for record in train(load_recipe(recipe)).metrics() if "loss" in record]
    assert records[-1]["rewards_accuracy"] == 1.0
    assert records[-1]["loss"] < 0.6
