"""On a GPU norms and rotations in few kernels are what the model's own are."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.models.few_passes import use_few_passes

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
ALLOWED = {torch.float32: 1e-4, torch.bfloat16: 5e-2}


@pytest.mark.parametrize("dtype", ALLOWED)
def test_under_autocast_a_norm_gives_the_type_it_is_given(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = tiny.make_model(tmp_path / "model", head_dim=64)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).cuda()
    use_few_passes(model)
    with torch.autocast("cuda", torch.bfloat16):
        given = torch.randn(2, 32, device="cuda", dtype=dtype)
        assert model.model.norm(given).dtype == dtype


def learned(model: Any, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), torch.cat([p.grad.float().flatten() for p in model.parameters()])


@pytest.mark.parametrize("dtype", ALLOWED)
@pytest.mark.parametrize("shape", ["qwen3", "llama", "gemma3"])
def test_loss_and_gradient_stay_what_they_were(
    tmp_path: Path, shape: str, dtype: torch.dtype
) -> None:
    folder = tiny.make_model(tmp_path / shape, shape, head_dim=64)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).cuda().train()
    ours = copy.deepcopy(theirs)
    use_few_passes(ours)
    changed = [
        type(a) is not type(b) for a, b in zip(ours.modules(), theirs.modules(), strict=True)
    ]
    assert any(changed) or shape == "gemma3"  # whose norm adds one to its weight
    ids = torch.randint(1, 400, (3, 70), generator=torch.Generator().manual_seed(0)).cuda()
    (loss, gradient), (expected, exact) = learned(ours, ids), learned(theirs, ids)
    assert loss.item() == pytest.approx(expected.item(), rel=ALLOWED[dtype] / 10)
    assert (gradient - exact).norm() < ALLOWED[dtype] * exact.norm()
