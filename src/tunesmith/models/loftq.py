"""Adapters that begin as what few bits leave out (LoftQ, Li et al. 2023, arXiv:2310.08659).

Quantized is not W but W less what the adapter is to add, and the adapter becomes the main part of
what is left out, in turns: `Q = q(W - s B A)`, then `s B A` the nearest to `W - Q` of that rank. So
the adapter belongs to Q, not to W; what was taken from W before it was quantized is kept with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tunesmith.errors import ModelError
from tunesmith.models.beginnings import NAME

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunesmith.recipe.quantize import Quantize

FILE = "loftq.safetensors"
QUANTIZE = "quantize"
TAKEN_A, TAKEN_B = "taken_A", "taken_B"
EXACT_UP_TO = 512
"""Rows or columns up to which an SVD is exact; of more the main part is found by random probing."""
MORE = 16
"""Directions that are probed beyond those that are taken."""
Pair = tuple["torch.Tensor", "torch.Tensor"]
"""B, [out, rank], and A, [rank, in]."""


@dataclass(frozen=True)
class Start:
    """How one layer begins.

    Attributes:
        taken: what is taken from its weight before that is quantized.
        adds: what its adapter adds to that, and so nearly to the weight.
    """

    taken: Pair
    adds: Pair


def over_few_bits(model: torch.nn.Module) -> dict[str, Any]:
    """Find the layers of LoRA over quantized ones, by name."""
    from peft.tuners.lora.layer import LoraLayer

    from tunesmith.models.quantize.product import Whole

    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, LoraLayer) and isinstance(layer.base_layer, Whole)
    }


def weight_of(whole: torch.nn.Module, name: str) -> torch.Tensor:
    """Return the weight of a layer before it was quantized, in fp32, [out, in]."""
    from tunesmith.models.targets import is_transposed

    layer: Any = whole.get_submodule(name.removeprefix("base_model.model."))
    weight: torch.Tensor = layer.weight.detach()
    return (weight.t() if is_transposed(layer) else weight).float()


def find_start(layer: Any, weight: torch.Tensor, quantize: Quantize, rounds: int) -> Start:
    """Quantize and complete a layer in turns; it holds what was quantized last.

    Args:
        layer: of LoRA.
        weight: what it stands for, [out, in], where it lies.
    """
    import torch

    from tunesmith.models.quantize.anew import hold

    rank = int(layer.r[NAME])
    adds: Pair = weight.new_zeros(len(weight), rank), weight.new_zeros(rank, weight.shape[1])
    taken = adds
    for _ in range(rounds):
        taken = adds
        hold(layer.base_layer, weight - taken[0] @ taken[1], quantize)
        adds = nearest(weight - layer.base_layer.whole(torch.float32), rank)
    return Start(taken, adds)


def nearest(weight: torch.Tensor, rank: int) -> Pair:
    """Return the product of a rank that is nearest to a matrix, split evenly (Eckart & Young).

    Ranks beyond those of the matrix are zeros.
    """
    import torch
    from torch.nn.functional import pad

    if min(weight.shape) <= max(EXACT_UP_TO, rank + MORE):
        left, lengths, right = torch.linalg.svd(weight, full_matrices=False)
        right = right.t()
    else:
        left, lengths, right = torch.svd_lowrank(weight, q=rank + MORE, niter=8)
    root = lengths[:rank].sqrt()
    b, a = left[:, :rank] * root, (right[:, :rank] * root).t().contiguous()
    beyond = rank - len(root)
    return pad(b, (0, beyond)), pad(a, (0, 0, 0, beyond))


def begin(layer: Any, adds: Sequence[torch.Tensor]) -> None:
    """Let a layer's adapter add what it is to begin with, B and A."""
    b, a = adds
    layer.lora_B[NAME].weight.data.copy_(b / layer.scaling[NAME])
    layer.lora_A[NAME].weight.data.copy_(a)


def keep_taken(layer: Any, taken: Pair) -> None:
    """Keep with a layer of LoRA what was taken from its weight."""
    for name, tensor in zip((TAKEN_B, TAKEN_A), taken, strict=True):
        layer.register_buffer(name, tensor.float().contiguous(), persistent=False)


def _taken(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{part}": layer._buffers[part]
        for name, layer in over_few_bits(model).items()
        for part in (TAKEN_A, TAKEN_B)
        if part in layer._buffers
    }


def taken_numbers(model: torch.nn.Module) -> list[torch.Tensor]:
    """List what is kept of what was taken from weights."""
    return list(_taken(model).values())


def write_taken(model: torch.nn.Module, folder: Path) -> None:
    """Write beside an adapter what was taken from the weights, if anything was."""
    found = {name: tensor.cpu() for name, tensor in _taken(model).items()}
    if not found:
        return
    save_file(found, folder / FILE, metadata={QUANTIZE: vars(model)[QUANTIZE]})


def remember_kind(model: torch.nn.Module, quantize: Quantize) -> None:
    """Let a model know how what was left of its weights was quantized."""
    vars(model)[QUANTIZE] = json.dumps(quantize.model_dump())


def is_over_few_bits(folder: Path | None) -> bool:
    """Whether there is a saved adapter, and it belongs to weights that something was taken from."""
    return folder is not None and (folder / FILE).is_file()


def refuse_over_few_bits(folder: Path, where: str) -> None:
    """Refuse an adapter that belongs to weights that something was taken from.

    Raises:
        ModelError: naming it.
    """
    if is_over_few_bits(folder):
        raise ModelError(
            f"the adapter {folder} began as what few bits leave out (tuning.init: loftq), and adds "
            "to those alone",
            hint="export its run, and name what comes out as the model",
            where=where,
        )


def read_kind(folder: Path) -> Quantize:
    """Read how the weights that an adapter belongs to were quantized."""
    from pydantic import TypeAdapter

    from tunesmith.recipe.quantize import Quantize

    with safe_open(folder / FILE, framework="pt") as file:
        said = (file.metadata() or {}).get(QUANTIZE, "")
    found: Quantize = TypeAdapter[Any](Quantize).validate_json(said)
    return found


def hold_what_is_left(
    model: PreTrainedModel, base: Path, adapter: Path, *, whole: bool = False
) -> None:
    """Quantize the layers of a base anew, less what was taken from each for an adapter.

    Args:
        model: the base, quantized as `read_kind` says.
        whole: put its weights together for good.
    """
    import torch

    from tunesmith.models.load import load_model
    from tunesmith.models.quantize.anew import hold
    from tunesmith.models.quantize.whole import make_whole

    quantize = read_kind(adapter)
    before = load_model(base, dtype=torch.float32, device=torch.device("cpu"))
    for name, (b, a) in read_pairs(load_file(adapter / FILE)).items():
        inner = name.removeprefix("base_model.model.")
        layer: Any = model.get_submodule(inner)
        weight = weight_of(before, inner).to(layer.weight.device)
        hold(layer, weight - b.to(weight) @ a.to(weight), quantize)
    if whole:
        make_whole(model, model.dtype)
        loaded: Any = model
        if "hf_quantizer" in vars(loaded):  # else transformers takes it for quantized still
            loaded.hf_quantizer.remove_quantization_config(loaded)


def read_pairs(tensors: Mapping[str, torch.Tensor]) -> dict[str, Pair]:
    """Put together what was taken, by layer."""
    end = f".{TAKEN_A}"
    names = [name.removesuffix(end) for name in tensors if name.endswith(end)]
    return {n: (tensors[f"{n}.{TAKEN_B}"], tensors[f"{n}.{TAKEN_A}"]) for n in names}
