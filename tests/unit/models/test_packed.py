"""Folders that were quantized before: read as their own packages read them, trained and merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests import packed, tiny
from tests.unit.models.test_quantize import CPU, flat_loss, gradients, move, quantized_layers, same
from tunesmith.errors import ModelError
from tunesmith.models.few_passes import use_few_passes
from tunesmith.models.inspect import read_config
from tunesmith.models.load import load_model, load_scorer
from tunesmith.models.quantize.grouped import Grouped
from tunesmith.models.quantize.packed import formats
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.quantize import HQQ
from tunesmith.recipe.tuning import LoRA

GOLDEN = Path("tests/golden/packed.safetensors")
FOLDERS = [("gptq", 2), ("gptq", 3), ("gptq", 4), ("gptq", 8), ("awq", 4), ("aqlm", 8)]


def golden() -> dict[str, dict[str, torch.Tensor]]:
    layers: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in load_file(GOLDEN).items():
        layer, _, part = name.rpartition(".")
        layers.setdefault(layer, {})[part] = tensor
    return layers


def load(folder: Path, **options: Any) -> Any:
    return load_model(folder, dtype=torch.float32, device=CPU, **options)


@pytest.mark.parametrize("name", sorted(golden()))
def test_a_layer_means_what_its_own_package_reads_in_it(name: str) -> None:
    """gptqmodel 7.7.0 and aqlm 1.1.7 made these, see make_packed.py; gptqmodel reads in fp16."""
    held = golden()[name]
    meant = held.pop("whole")
    layout = name.split(".", maxsplit=1)[0]
    method = layout.removesuffix("_v2")
    room = Grouped(64, 32, bias=False, source_cls=torch.nn.Linear)
    layer: Any = formats()[method].unpack(room, held, {"checkpoint_format": layout})
    whole = layer.whole(torch.float32)
    assert torch.allclose(whole, meant, atol=0 if method == "aqlm" else 1e-4)
    assert torch.equal(layer.whole(torch.bfloat16), whole.bfloat16())
    if method == "gptq":
        assert layer.weight.nbytes == held["qweight"].nbytes


@pytest.mark.parametrize(("method", "bits"), FOLDERS)
def test_a_packed_folder_learns_as_its_weights_put_together_do(
    tmp_path: Path, method: str, bits: int
) -> None:
    folder = packed.make_packed(tmp_path / "m", method, bits=bits)
    losses, found = [], []
    for model in (load(folder), load(tmp_path / "whole")):
        torch.manual_seed(0)
        adapted: Any = add_lora(model, LoRA(rank=4))
        move(adapted)
        use_few_passes(adapted)
        losses.append(flat_loss(adapted.train()))
        found.append(gradients(adapted, losses[-1]))
    assert len(quantized_layers(load(folder))) == 14
    assert losses[0].item() == pytest.approx(losses[1].item(), rel=1e-5)
    same(found[0], found[1], 1e-5)


@pytest.mark.parametrize(("method", "bits"), [("gptq", 4), ("aqlm", 8)])
def test_a_packed_folder_is_put_together_for_good(tmp_path: Path, method: str, bits: int) -> None:
    folder = packed.make_packed(tmp_path / "m", method, bits=bits)
    model = load(folder, whole=True)
    model.save_pretrained(str(tmp_path / "out"))
    written = load_file(tmp_path / "out" / "model.safetensors")
    meant = load_file(tmp_path / "whole" / "model.safetensors")
    assert all(torch.allclose(written[name], meant[name], atol=1e-6) for name in written)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())


def test_groups_of_other_sizes_and_biases_are_read(tmp_path: Path) -> None:
    folder = packed.make_packed(tmp_path / "m", "awq")
    layer = dict(load(folder).named_modules())["model.layers.0.self_attn.q_proj"]
    assert isinstance(layer, Grouped)
    stored = load_file(folder / "model.safetensors")["model.layers.0.self_attn.q_proj.bias"]
    assert layer.bias is not None
    assert torch.equal(layer.bias, stored)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "layout marlin"),
        ({"quant_method": "awq", "version": "gemv"}, "layout gemv"),
        ({"quant_method": "awq", "bits": 8}, "in 8 bits"),
        ({"quant_method": "fp8"}, "cannot read"),
        ({"quant_method": "compressed-tensors"}, "cannot read"),
    ],
    ids=str,
)
def test_what_cannot_be_read_is_refused_with_its_reason(
    tmp_path: Path, options: Any, why: str
) -> None:
    folder = packed.make_packed(tmp_path / "m", "gptq")
    tiny.change_json(folder / "config.json", quantization_config=options)
    with pytest.raises(ModelError, match="the weights are quantized") as caught:
        load(folder)
    assert why in caught.value.message
    assert "original model" in caught.value.hint


def drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors["model.layers.1.mlp.up_proj.scales"]


def drop_all(tensors: dict[str, torch.Tensor]) -> None:
    for part in ("qweight", "qzeros", "scales", "g_idx"):
        del tensors[f"model.layers.1.mlp.up_proj.{part}"]


def shrink(tensors: dict[str, torch.Tensor]) -> None:
    name = "model.layers.1.mlp.up_proj.qweight"
    tensors[name] = tensors[name][:-1].clone()


def astray(tensors: dict[str, torch.Tensor]) -> None:
    tensors["model.layers.1.mlp.up_proj.g_idx"][3] = 99


def add(tensors: dict[str, torch.Tensor]) -> None:
    layer = {k: v for k, v in tensors.items() if "layers.1.mlp.up_proj" in k}
    tensors.update({name.replace("layers.1", "layers.7"): v.clone() for name, v in layer.items()})


@pytest.mark.parametrize("spoil", [drop, drop_all, shrink, astray, add])
def test_a_packed_folder_that_does_not_fit_is_refused(tmp_path: Path, spoil: Any) -> None:
    folder = packed.make_packed(tmp_path / "m", "gptq")
    tensors = load_file(folder / "model.safetensors")
    spoil(tensors)
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError) as caught:
        load(folder)
    assert caught.value.where == str(folder)


def test_mixed_columns_without_their_groups_are_refused(tmp_path: Path) -> None:
    folder = packed.make_packed(tmp_path / "m", "gptq")
    tensors = load_file(folder / "model.safetensors")
    bare = {name: tensor for name, tensor in tensors.items() if "g_idx" not in name}
    save_file(bare, folder / "model.safetensors", {"format": "pt"})
    said = read_config(folder / "config.json")["quantization_config"]
    tiny.change_json(folder / "config.json", quantization_config={**said, "desc_act": True})
    with pytest.raises(ModelError, match="no g_idx"):
        load(folder)


def test_what_needs_whole_weights_is_refused(tmp_path: Path) -> None:
    folder = packed.make_packed(tmp_path / "m", "gptq")
    with pytest.raises(ModelError, match="quantized already"):
        load(folder, quantize=HQQ())
    with pytest.raises(ModelError, match="reward model"):
        load_scorer(folder, dtype=torch.float32, device=CPU, new_head=True)
