"""Read what a LoRA adapter adds to the products of a model."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from tunesmith.errors import ModelError
from tunesmith.inference.batching.adapters import Deltas, Pair, Place
from tunesmith.inference.batching.weights import Product, Weights
from tunesmith.models.adapter import WEIGHTS, check_base
from tunesmith.models.chat import Subject
from tunesmith.models.inspect import ADAPTER, read_config
from tunesmith.models.reasons import reason_of

TENSOR = re.compile(r"base_model\.model\.(.+)\.lora_(A|B)\.weight")
MORE = (
    "use_dora",
    "modules_to_save",
    "trainable_token_indices",
    "lora_bias",
    "layer_replication",
    "target_parameters",
    "use_qalora",
    "use_bdlora",
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "monteclora_config",
    "velora_config",
    "fan_in_fan_out",
)
"""Options of PEFT's LoRA that do more than add a product."""


def find_more(folder: Path) -> str | None:
    """Say what an adapter does besides adding products; None if that is all."""
    config = read_config(folder / ADAPTER)
    if config.get("peft_type") != "LORA":
        return f"is of the kind {str(config.get('peft_type')).lower()}"
    if config.get("bias", "none") != "none":
        return "trains biases"
    for name in MORE:
        if config.get(name):
            return f"has {name}"
    return None


def read_deltas(subject: Subject, base: Subject, weights: Weights, name: str) -> Deltas:
    """Read an adapter that is to answer over a base in memory.

    Args:
        base: what the model in memory was loaded from.
        name: what the adapter is called in steps.

    Raises:
        ModelError: if it was trained on another base, or does more than add products.
    """
    folder = subject.adapter
    if folder is None:
        raise ModelError(
            "it is no adapter but a whole model",
            hint="serve it by itself",
            where=subject.name,
        )
    more = find_more(folder)
    if more is not None:
        raise ModelError(
            f"the adapter cannot answer beside others: it {more}",
            hint="serve the run by itself, or export it",
            where=str(folder),
        )
    if subject.beneath != base.beneath or subject.blend or subject.quantize != base.quantize:
        raise ModelError(
            "the adapter was trained on a base that was changed before, in another way",
            hint="serve the run by itself",
            where=str(folder),
        )
    check_base(folder, base.base, beneath=base.beneath, foreign=subject.run is None)
    config = read_config(folder / ADAPTER)
    found = {
        place: _pair(product, prefix, tensors, (weights, config))
        for place, product, prefix, tensors in _by_product(folder, weights)
    }
    return Deltas(name, found)


def _by_product(
    folder: Path, weights: Weights
) -> list[tuple[Place, Product, str, dict[str, dict[str, torch.Tensor]]]]:
    """Sort the tensors of an adapter by the products they change.

    Returns:
        place, product, what comes before the names of its parts, and the tensors A and B by part.
    """
    tensors: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in _load(folder).items():
        match = TENSOR.fullmatch(name)
        if match is None:
            raise _left_over(name, folder)
        tensors.setdefault(match.group(1), {})[match.group(2)] = tensor
    found = []
    for place, product, prefix in list_products(weights):
        own = {part: tensors.pop(prefix + part, {}) for part, _ in product.parts}
        own = {part: pair for part, pair in own.items() if pair}
        if own:
            found.append((place, product, prefix, own))
    if tensors:
        raise _left_over(next(iter(tensors)), folder)
    return found


def list_products(weights: Weights) -> list[tuple[Place, Product, str]]:
    """List the products of a model, and what comes before the names of their parts."""
    found: list[tuple[Place, Product, str]] = [((-1, "head"), weights.head, "")]
    for place, layer in enumerate(weights.layers):
        for name, product in (
            ("qkv", layer.qkv),
            ("out", layer.out),
            ("gate_up", layer.gate_up),
            ("down", layer.down),
        ):
            found.append(((place, name), product, f"{layer.name}."))
    return found


def _pair(
    product: Product,
    prefix: str,
    tensors: Mapping[str, Mapping[str, torch.Tensor]],
    how: tuple[Weights, Mapping[str, Any]],
) -> Pair:
    """Scale the matrices of a product's parts, and put them together."""
    weights, config = how
    sizes = dict(product.parts)
    found = {}
    for part, pair in tensors.items():
        _check_shapes(pair, (sizes[part], product.weight.shape[1]), prefix + part)
        scale = _scale(config, prefix + part, len(pair["A"]))
        found[part] = pair["A"], pair["B"].float() * scale
    return join_pairs(product, found, weights)


def join_pairs(product: Product, pairs: Mapping[str, Pair], weights: Weights) -> Pair:
    """Put the matrices of a product's parts together: down [in, ranks] and up [ranks, out].

    Args:
        pairs: A [rank, in] and B [out, rank], scaled, of the parts that have some.
    """
    device, dtype = weights.device, weights.dtype
    ranks = sum(len(down) for down, _ in pairs.values())
    down = torch.zeros(ranks, product.weight.shape[1], device=device)
    up = torch.zeros(len(product.weight), ranks, device=device)
    first = start = 0
    for part, outputs in product.parts:
        if part in pairs:
            a, b = pairs[part]
            down[start : start + len(a)] = a
            up[first : first + outputs, start : start + len(a)] = b
            start += len(a)
        first += outputs
    return down.t().to(dtype), up.t().to(dtype)


def _load(folder: Path) -> dict[str, torch.Tensor]:
    try:
        return load_file(folder / WEIGHTS)
    except (SafetensorError, OSError) as problem:
        raise ModelError(
            f"the adapter is damaged: {reason_of(problem)}",
            hint="resume the run, which writes it again, or copy the folder again",
            where=str(folder / WEIGHTS),
        ) from problem


def _check_shapes(pair: Mapping[str, torch.Tensor], shape: tuple[int, int], module: str) -> None:
    """Refuse matrices whose product cannot be added to a weight [out, in]."""
    fits = (
        pair.keys() == {"A", "B"}
        and len(pair["A"]) == pair["B"].shape[-1]
        and (pair["B"].shape[0], pair["A"].shape[-1]) == shape
    )
    if not fits:
        raise ModelError(
            f"tensors of the adapter are of another shape: {module}",
            hint="the adapter belongs to another base, or is damaged; copy it again",
            where=module,
        )


def _scale(config: Mapping[str, Any], module: str, rank: int) -> float:
    """Return what an adapter's product is multiplied by, as PEFT does."""
    from peft.utils.other import get_pattern_key

    alphas: dict[str, float] = config.get("alpha_pattern") or {}
    alpha = float(alphas.get(get_pattern_key(list(alphas), module), config["lora_alpha"]))
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _left_over(name: str, folder: Path) -> ModelError:
    return ModelError(
        f"tensors of the adapter are left over: {name}",
        hint="the adapter belongs to another base, or changes what cannot be changed while others "
        "answer; serve the run by itself",
        where=str(folder),
    )
