"""On a GPU rows laid end to end teach what transformers and PEFT teach from padded ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.batches import lay_end_to_end, pad, to_device
from tunesmith.methods.next_token import next_token_loss
from tunesmith.models.layout import find_layout
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.tuning import LoRA

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"
LENGTHS = (5, 63, 9, 100, 2, 31)
ALLOWED = {torch.float32: (1e-5, 1e-4), torch.bfloat16: (5e-3, 0.1)}
"""How far loss and gradients may lie apart, relatively."""


@pytest.fixture(autouse=True)
def exact_products() -> None:
    """Compute products of fp32 in fp32."""
    assert not torch.backends.cuda.matmul.allow_tf32


def rows() -> list[dict[str, list[int]]]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for length in LENGTHS:
        ids = torch.randint(1, 400, (length,), generator=draw).tolist()
        made.append({"input_ids": ids, "labels": [UNLEARNED] * (length // 2) + ids[length // 2 :]})
    return made


def on_device(batch: dict[str, Any]) -> dict[str, Any]:
    return to_device(batch, torch.device(DEVICE))


def theirs_of(given: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
    """The same rows as transformers takes them: padded, labels not shifted."""
    batch = pad(given)
    labels = torch.full_like(batch["input_ids"], UNLEARNED)
    for place, row in enumerate(given):
        labels[place, : len(row["labels"])] = torch.tensor(row["labels"])
    kept = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return on_device({**kept, "labels": labels})


def load(folder: Path, dtype: torch.dtype) -> Any:
    """Load with the attention that is written out in full."""
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager"
    ).to(DEVICE)


def adapted_by_peft(model: Any) -> Any:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, config)


def adapted_by_us(model: Any) -> Any:
    return add_lora(model, LoRA(rank=4, alpha=8))


def pair_of(folder: Path, tuning: str, dtype: torch.dtype) -> tuple[Any, Any]:
    """Make the same model twice: as ours, and as transformers and PEFT leave it."""
    mine, theirs = load(folder, dtype), load(folder, dtype)
    if tuning == "lora":
        mine, theirs = adapted_by_us(mine), adapted_by_peft(theirs)
        torch.manual_seed(1)
        for name, weight in theirs.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        mine.load_state_dict(theirs.state_dict())
    return mine.train(), theirs.train()


def learned(model: Any, loss: Callable[[], torch.Tensor], dtype: torch.dtype) -> Any:
    """Compute loss and gradients, products in `dtype`."""
    with torch.autocast(DEVICE, torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = loss()
    found.backward()
    kept = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return found.item(), kept


@pytest.mark.parametrize("dtype", ALLOWED, ids=["fp32", "bf16"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("shape", ["qwen3", "llama", "gemma2", "gemma3"])
def test_loss_and_gradients_are_those_of_padded_rows(
    tmp_path: Path, shape: str, tuning: str, dtype: torch.dtype
) -> None:
    folder = tiny.make_model(tmp_path / shape, shape)
    stored = torch.float32 if tuning == "full" else dtype
    mine, theirs = pair_of(folder, tuning, stored)
    layout = find_layout(mine)
    assert layout.is_flat, layout.padded_because
    flat, padded = on_device(lay_end_to_end(rows())), theirs_of(rows())

    def ours() -> torch.Tensor:
        summed = next_token_loss(mine, flat)
        return summed.total / summed.count

    loss, gradients = learned(mine, ours, dtype)
    expected, exact = learned(theirs, lambda: theirs(**padded).loss, dtype)
    of_loss, of_gradient = ALLOWED[dtype]
    assert loss == pytest.approx(expected, rel=of_loss)
    assert gradients.keys() == exact.keys()
    for name, gradient in gradients.items():
        apart = torch.linalg.vector_norm((gradient - exact[name]).float())
        assert apart <= of_gradient * torch.linalg.vector_norm(exact[name].float()) + 1e-7, name


@pytest.mark.parametrize("size", [64, 128, 256])
def test_no_row_sees_another_one_in_sixteen_bits(tmp_path: Path, size: int) -> None:
    folder = tiny.make_model(tmp_path / "model", head_dim=size)
    model = load(folder, torch.bfloat16).eval()
    assert find_layout(model).is_flat
    batch = on_device(lay_end_to_end(rows()))
    other = {**batch, "input_ids": batch["input_ids"].clone()}
    other["input_ids"][:, : LENGTHS[0]] = 7
    kept = batch["predict_at"] >= LENGTHS[0]
    told = {name: batch[name][kept] for name in ("predict_at", "targets")}
    one, two = (next_token_loss(model, {**given, **told}) for given in (batch, other))
    assert one.total.item() == two.total.item()
