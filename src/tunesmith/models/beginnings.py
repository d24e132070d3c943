"""Adapters that begin with a part of the frozen weights, which is taken out of them.

PiSSA (arXiv:2404.02948) and OLoRA (arXiv:2406.01775) train `W - s B0 A0 + s B A`. Saved is what
they add to the original W: `s [B, -B0] [A; A0]`, a plain adapter of twice the rank.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import load_file, save_file

from tunesmith.models.inspect import ADAPTER, read_config
from tunesmith.runs.write import write_json

if TYPE_CHECKING:
    import torch

FIRST_A, FIRST_B = "first_A", "first_B"
NAME = "default"


def keep_beginnings(model: torch.nn.Module) -> None:
    """Keep what the matrices of a new adapter began with, beside them."""
    for _, layer in _layers(model):
        layer.register_buffer(FIRST_A, layer.lora_A[NAME].weight.detach().clone(), persistent=False)
        layer.register_buffer(FIRST_B, layer.lora_B[NAME].weight.detach().clone(), persistent=False)


def _layers(model: torch.nn.Module) -> list[tuple[str, Any]]:
    from peft.tuners.lora.layer import LoraLayer

    return [(name, layer) for name, layer in model.named_modules() if isinstance(layer, LoraLayer)]


def find_beginnings(model: torch.nn.Module) -> dict[str, Any]:
    """Find the layers that have kept what they began with, by name."""
    return {name: layer for name, layer in _layers(model) if FIRST_A in layer._buffers}


def kept_numbers(model: torch.nn.Module) -> list[torch.Tensor]:
    """List what is kept of how the matrices began."""
    return [
        kept for layer in find_beginnings(model).values() for kept in (layer.first_A, layer.first_B)
    ]


def write_plain(model: torch.nn.Module, file: Path) -> None:
    """Turn a saved adapter into the plain one that adds as much to the original base."""
    import torch

    layers = find_beginnings(model)
    if not layers:
        return
    weights = load_file(file)
    ranks, alphas = {}, {}
    for name, layer in layers.items():
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        weights[a] = torch.cat([weights[a], layer.first_A.to(weights[a]).cpu()])
        weights[b] = torch.cat([weights[b], -layer.first_B.to(weights[b]).cpu()], dim=1)
        inner = name.removeprefix("base_model.model.")
        ranks[inner] = len(weights[a])
        alphas[inner] = layer.scaling[NAME] * len(weights[a])
    save_file(weights, file, metadata={"format": "pt"})
    same = len(set(ranks.values())) == len(set(alphas.values())) == 1
    changed = {
        "r": next(iter(ranks.values())),
        "lora_alpha": next(iter(alphas.values())),
        "rank_pattern": {} if same else ranks,
        "alpha_pattern": {} if same else alphas,
        "init_lora_weights": True,
        "use_rslora": False,
    }
    config = file.with_name(ADAPTER)
    write_json(config, {**read_config(config), **changed})


def without_beginnings(
    model: torch.nn.Module, weights: dict[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Take from a saved plain adapter the matrices that are trained."""
    found = dict(weights)
    for name, layer in find_beginnings(model).items():
        rank = len(layer.first_A)
        a, b = f"{name}.lora_A.weight", f"{name}.lora_B.weight"
        if a in found and b in found:
            found[a], found[b] = found[a][:rank], found[b][:, :rank]
    return found
