"""Adapters other than LoRA on a base of few bits: gradients of whole weights, end to end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pipelines.test_going_on import stop_at
from tests.pipelines.test_quantized import adapter, logits, train_on
from tests.pipelines.test_tunings import close, shake
from tunesmith.export.export import export
from tunesmith.models.chat import load_chat_model
from tunesmith.models.load import load_model
from tunesmith.models.tuning import apply_tuning
from tunesmith.recipe.quantize import HQQ, NF4, Int8, Quantize
from tunesmith.recipe.tuning import IA3, OFT, AdaLoRA, Adapter, VeRA
from tunesmith.training.train import resume

IDS = torch.arange(5, 45)[None]
TUNINGS: dict[str, Adapter] = {
    "adalora": AdaLoRA(rank=3, first_rank=5),
    "vera": VeRA(rank=16),
    "oft": OFT(block_size=8),
    "ia3": IA3(),
}


@pytest.fixture(autouse=True)
def needed() -> None:
    pytest.importorskip("bitsandbytes")


def put_together(model: Any) -> None:
    """Put plain layers in the place of quantized ones, with what their bits say."""
    from tunesmith.models.quantize.product import Whole

    for name, layer in list(model.named_modules()):
        if isinstance(layer, Whole):
            plain = torch.nn.Linear(layer.in_features, layer.out_features, bias=False)
            plain.weight.data = layer.whole(torch.float32)
            parent, _, last = name.rpartition(".")
            model.get_submodule(parent)._modules[last] = plain
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False


def gradients(folder: Path, tuning: Adapter, quantize: Quantize, *, whole: bool) -> dict[str, Any]:
    device = torch.device("cpu")
    model = load_model(folder, dtype=torch.float32, device=device, quantize=quantize)
    if whole:
        put_together(model)
    torch.manual_seed(0)
    tuned: Any = apply_tuning(model, tuning)
    shake(tuned)
    tuned.train()
    tuned(input_ids=IDS, labels=IDS).loss.backward()
    return {name: w.grad for name, w in tuned.named_parameters() if w.grad is not None}


@pytest.mark.parametrize("quantize", [NF4(), Int8(), HQQ(bits=3)], ids=["nf4", "int8", "hqq"])
@pytest.mark.parametrize("kind", TUNINGS)
def test_gradients_are_those_on_what_the_bits_say(
    tiny_model: Path, kind: str, quantize: Quantize
) -> None:
    ours = gradients(tiny_model, TUNINGS[kind], quantize, whole=False)
    theirs = gradients(tiny_model, TUNINGS[kind], quantize, whole=True)
    assert ours.keys() == theirs.keys()
    assert any(bool(gradient.any()) for gradient in ours.values())
    for name, gradient in theirs.items():
        assert close(ours[name], gradient), name


@pytest.mark.proof
@pytest.mark.parametrize("bits", ["nf4", "int8", "hqq"])
@pytest.mark.parametrize("kind", TUNINGS)
def test_it_is_trained_resumed_asked_and_exported(
    tmp_path: Path, tiny_model: Path, kind: str, bits: str
) -> None:
    tuning = TUNINGS[kind].model_dump(mode="json")
    whole = train_on(tmp_path, tiny_model, bits, tuning=tuning)
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 3)
        run = train_on(tmp_path, tiny_model, bits, tuning=tuning)
    resume(run)
    one, other = adapter(whole), adapter(run)
    assert all(torch.equal(one[name], other[name]) for name in one)
    base = load_chat_model(run.path, base_only=True, precision="fp32")
    assert not close(logits(load_chat_model(run.path, precision="fp32")), logits(base), 1e-3)
    exported = export(run.path, tmp_path / "out")
    assert exported.from_quantized is not None
    assert exported.distance.kl < 1e-6
