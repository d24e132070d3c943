"""Norms and rotations in few passes are those of the model, or are left alone."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GlmConfig
from transformers.models.glm.modeling_glm import GlmAttention

from tests import tiny
from tunesmith.models.few_passes import use_few_passes
from tunesmith.models.load import load_model

IDS = torch.tensor([[5, 3, 200, 41, 9, 9, 17], [1, 2, 3, 4, 5, 6, 7]])


def pair(folder: Path, shape: str) -> tuple[Any, Any]:
    """The same model twice: as transformers has it, and in few passes."""
    theirs = load_model(
        tiny.make_model(folder / shape, shape), dtype=torch.float32, device=torch.device("cpu")
    )
    torch.manual_seed(3)
    for name, weight in theirs.named_parameters():
        if "norm" in name:
            torch.nn.init.normal_(weight)
    ours = copy.deepcopy(theirs)
    use_few_passes(ours)
    return theirs.train(), ours.train()


def changed(model: Any) -> set[str]:
    """Name the classes that compute otherwise than transformers' own."""
    kinds = {type(module) for module in model.modules()}
    return {kind.__name__ for kind in kinds if kind.__mro__[1].__name__ == kind.__name__}


def run(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    torch.manual_seed(1)  # what is dropped is the same
    logits = model(input_ids=IDS, use_cache=False).logits
    weights = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0))
    (logits.float() * weights).mean().backward()
    return logits, {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("shape", ["qwen3", "llama", "gemma2", "gpt2"])
def test_logits_and_every_gradient_stay_the_same(
    tmp_path: Path, shape: str, checkpointing: bool
) -> None:
    theirs, ours = pair(tmp_path, shape)
    if checkpointing:
        ours.activation_checkpointing_enable({"use_reentrant": False})
    expected, gradients = run(theirs)
    found, mine = run(ours)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert mine.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert (mine[name] - gradient).norm() <= 1e-5 * gradient.norm(), name


def test_what_is_the_same_is_changed_and_nothing_else(tmp_path: Path) -> None:
    assert changed(pair(tmp_path, "qwen3")[1]) == {
        "Qwen3RMSNorm",
        "Qwen3Attention",
        "Qwen3MLP",
    }
    assert changed(pair(tmp_path, "llama")[1]) == {
        "LlamaRMSNorm",
        "LlamaAttention",
        "LlamaMLP",
    }
    assert changed(pair(tmp_path, "gemma2")[1]) == {"Gemma2Attention"}  # it adds one to the weight
    assert changed(pair(tmp_path, "gpt2")[1]) == set()


def test_frozen_norms_get_no_gradient(tmp_path: Path) -> None:
    _, ours = pair(tmp_path, "qwen3")
    for name, weight in ours.named_parameters():
        weight.requires_grad_("norm" not in name)
    assert not any("norm" in name for name in run(ours)[1])


def test_less_is_kept_for_the_way_back(tmp_path: Path) -> None:
    def kept(model: Any) -> int:
        saved: dict[int, int] = {}

        def pack(given: torch.Tensor) -> torch.Tensor:
            saved[given.untyped_storage().data_ptr()] = given.untyped_storage().nbytes()
            return given

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda given: given):
            run(model)
        return sum(saved.values())

    theirs, ours = pair(tmp_path, "qwen3")
    assert kept(ours) < 0.92 * kept(theirs)


def test_in_16_bits_the_model_computes_as_before(tmp_path: Path) -> None:
    theirs, ours = pair(tmp_path, "qwen3")
    assert torch.equal(run(ours.bfloat16())[0], run(theirs.bfloat16())[0])


def test_under_autocast_it_differs_by_rounding_only(tmp_path: Path) -> None:
    theirs, ours = pair(tmp_path, "qwen3")
    with torch.autocast("cpu", torch.bfloat16):
        (expected, gradients), (found, mine) = run(theirs), run(ours)
    assert (found - expected).norm() < 0.02 * expected.norm()
    for name, gradient in gradients.items():
        assert (mine[name] - gradient).norm() < 0.03 * gradient.norm(), name


def test_a_norm_or_rotation_of_another_kind_is_left_alone() -> None:
    class OddRMSNorm(torch.nn.Module):
        """One that takes the epsilon outside of the root."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(4))
            self.eps = 1e-6

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x / (x.pow(2).mean(-1, keepdim=True).sqrt() + self.eps)

    config = GlmConfig(hidden_size=16, num_attention_heads=2, num_key_value_heads=2, head_dim=8)
    turned = GlmAttention(config, 0)  # it turns neighbours, not halves
    model = torch.nn.Sequential(OddRMSNorm(), turned)
    use_few_passes(model)
    assert type(model[0]) is OddRMSNorm
    assert type(turned) is GlmAttention


def test_no_random_number_is_drawn(tmp_path: Path) -> None:
    theirs, _ = pair(tmp_path, "llama")
    torch.manual_seed(4)
    use_few_passes(theirs)
    drawn = torch.rand(3)
    torch.manual_seed(4)
    assert torch.equal(drawn, torch.rand(3))
