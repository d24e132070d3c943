"""What a quantized base takes, found from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from tunesmith.models.quantize.bit_planes import packed_bytes
from tunesmith.recipe.quantize import FP4, HQQ, NF4, Int8, Quantize, TorchAO

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunesmith.models.quantize.packed.contents import Packed

BLOCK = 64
"""Weights that share a scale in 4 bits."""
GROUP = 32
"""Weights of a row that share a scale in torchao's 4 bits."""
SCALES = 256
"""Scales that share one of their own where they are quantized too."""
CODES, SCALE_CODES = 4 * 16, 4 * (256 + 1)
"""What each layer keeps besides: what the codes mean, and the mean of its scales."""


@dataclass(frozen=True)
class Storage:
    """What the quantized layers of a model take, in bytes.

    Attributes:
        plain: as they are without quantization.
        quantized: scales included.
        largest: numbers of the largest layer, which is put together whole to be multiplied with.
        exact: whether it is put together in fp32 first, whatever it is multiplied in.
    """

    plain: int
    quantized: int
    largest: int
    exact: bool = False

    def working(self, *, half: bool) -> int:
        """Count the bytes of the largest layer while it is put together."""
        if not self.exact:
            return self.largest * (2 if half else 4)
        return self.largest * (1 + 4 + (2 if half else 0))


def measure_storage(
    model: PreTrainedModel, quantize: Quantize | None, packed: Packed | None = None
) -> Storage | None:
    """Add up the layers of a model that is not quantized yet, and may hold no numbers.

    Args:
        packed: what its folder holds, if that was quantized before.
    """
    weights = find_frozen(model)
    if packed is not None:
        held = [weights[name] for name in packed.layers if name in weights]
        return Storage(
            plain=sum(weight.nbytes for weight in held),
            quantized=packed.num_bytes,
            largest=max((weight.numel() for weight in held), default=0),
            exact=True,
        )
    if quantize is None:
        return None
    return Storage(
        plain=sum(weight.numel() * weight.element_size() for weight in weights.values()),
        quantized=sum(stored_bytes(quantize, *weight.shape) for weight in weights.values()),
        largest=max((weight.numel() for weight in weights.values()), default=0),
        exact=isinstance(quantize, HQQ | TorchAO),
    )


def find_frozen(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Find the weights that are quantized, by the names of their layers: linear, but the head.

    Each is [out, in].
    """
    from transformers.pytorch_utils import Conv1D

    head = model.get_output_embeddings()
    return {
        name: module.weight.t() if isinstance(module, Conv1D) else module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and module is not head
    }


def find_experts(model: PreTrainedModel) -> dict[str, torch.Tensor]:
    """Find the weights of experts that lie in one tensor a layer, by their names: they stay whole.

    Each is [experts, ...].
    """
    return {
        name: weight
        for name, weight in model.named_parameters()
        if weight.dim() == 3 and ".experts." in name
    }


def stored_bytes(quantize: Quantize, out: int, width: int) -> int:
    """Count the bytes that a weight [out, width] takes."""
    numbers = out * width
    if isinstance(quantize, Int8):
        return numbers + 4 * out
    if isinstance(quantize, HQQ):
        groups = ceil(numbers / quantize.group)
        return packed_bytes(numbers, quantize.bits) + 2 * 2 * groups
    if isinstance(quantize, TorchAO):
        groups = out * (width // GROUP if quantize.bits < 8 and width % GROUP == 0 else 1)
        return packed_bytes(numbers, quantize.bits) + (4 + 1) * groups
    scales = ceil(numbers / BLOCK)
    assert isinstance(quantize, NF4 | FP4)
    double = scales + 4 * ceil(scales / SCALES) + SCALE_CODES
    return ceil(numbers / 2) + (double if quantize.double else 4 * scales) + CODES
