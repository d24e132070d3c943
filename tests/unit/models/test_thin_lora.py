"""LoRA in fewer passes is LoRA as PEFT computes it."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import Linear

from tunesmith.models.thin_lora import ThinLoRA, use_thin_products

OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "dropout": {"lora_dropout": 0.4},
    "rank-stabilized": {"use_rslora": True},
    "biased": {"lora_bias": True, "target_modules": ["first"]},
    "decomposed": {"use_dora": True},
}


class Two(torch.nn.Module):
    """Two layers, one with a bias, one without."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(12, 20)
        self.second = torch.nn.Linear(20, 8, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(torch.tanh(self.first(x)))


def pair(dtype: torch.dtype = torch.float32, **options: Any) -> tuple[Any, Any]:
    """The same adapted model twice: as PEFT has it, and with thin products."""
    torch.manual_seed(0)
    config = LoraConfig(
        **{"r": 4, "lora_alpha": 6, "target_modules": ["first", "second"], **options}
    )
    theirs = get_peft_model(Two().to(dtype), config)
    for name, weight in theirs.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    ours = copy.deepcopy(theirs)
    use_thin_products(ours)
    return theirs, ours


def run(model: Any, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The output, and the gradients of what is trained and of the input."""
    torch.manual_seed(1)
    x = x.clone().requires_grad_()
    out = model(x)
    (out.float() * torch.arange(out.numel()).view(out.shape)).sum().backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert x.grad is not None
    return out, {**found, "x": x.grad}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_output_and_every_gradient_equal_those_of_peft(
    options: dict[str, Any], training: bool
) -> None:
    theirs, ours = (model.train(training) for model in pair(**options))
    assert any(type(module) is ThinLoRA for module in ours.modules())
    x = torch.randn(3, 5, 12)
    expected, gradients = run(theirs, x)
    out, found = run(ours, x)
    torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
    assert found.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_it_differs_by_rounding_only(dtype: torch.dtype) -> None:
    theirs, ours = pair(dtype)
    x = torch.randn(7, 12)
    with torch.autocast("cpu", torch.bfloat16):
        expected, gradients = run(theirs, x)
        out, found = run(ours, x)
    assert out.dtype == expected.dtype == torch.bfloat16
    assert (out - expected).norm() < 0.02 * expected.norm()
    for name, gradient in gradients.items():
        assert found[name].dtype == gradient.dtype
        assert (found[name] - gradient).norm() < 0.03 * gradient.norm(), name


def test_switched_off_merged_and_several_adapters_are_left_to_peft() -> None:
    theirs, ours = pair()
    x = torch.randn(4, 12)
    with theirs.disable_adapter(), ours.disable_adapter():
        assert torch.equal(ours(x), theirs(x))
    for model in (theirs, ours):
        model.add_adapter("other", LoraConfig(r=2, target_modules=["first"]))
        model.base_model.set_adapter(["default", "other"])
    torch.testing.assert_close(ours(x), theirs(x))
    for model in (theirs, ours):
        model.base_model.set_adapter("default")
    merged = ours.merge_and_unload()
    torch.testing.assert_close(merged(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_frozen_weights_get_no_gradient_and_open_ones_are_left_to_peft() -> None:
    _, ours = pair()
    run(ours, torch.randn(2, 12))
    layer = ours.base_model.model.first
    assert layer.base_layer.weight.grad is None
    layer.base_layer.weight.requires_grad_()
    run(ours, torch.randn(2, 12))
    assert layer.base_layer.weight.grad is not None


def test_a_frozen_first_matrix_gets_no_gradient_and_keeps_no_input() -> None:
    kept = []
    for frozen in (False, True):
        theirs, ours = pair()
        for model in (theirs, ours):
            for name, weight in model.named_parameters():
                if ".lora_A." in name and frozen:
                    weight.requires_grad_(False)
        x = torch.randn(3, 12)
        expected, gradients = run(theirs, x)
        out, found = run(ours, x)
        torch.testing.assert_close(out, expected, rtol=1e-5, atol=1e-6)
        assert found.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4, msg=name)
        saved: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda given, saved=saved: saved.append(given) or given, lambda given: given
        ):
            ours.base_model.model.first(x)
        kept.append(any(given.shape == x.shape for given in saved))
    assert kept == [True, False]


def test_a_model_may_change_a_product_in_place() -> None:
    theirs, ours = pair()
    x, other = torch.randn(2, 3, 12), torch.randn(2, 3, 20)
    found = []
    for model in (theirs, ours):
        out = model.base_model.model.first(x).add_(other)
        out.square().sum().backward()
        weight = model.base_model.model.first.lora_B["default"].weight
        found.append((out.detach(), weight.grad))
    torch.testing.assert_close(found[1][0], found[0][0])
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-4, atol=1e-4)


def test_only_plain_linear_layers_are_changed() -> None:
    class Special(torch.nn.Linear):
        """As a quantized layer is."""

    model = Two()
    model.first = Special(12, 20)
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["first", "second"]))
    use_thin_products(adapted)
    inner: Any = adapted.base_model.model
    assert type(inner.first) is Linear
    assert type(inner.second) is ThinLoRA
