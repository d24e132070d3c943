"""What a quantized base takes, found from shapes alone."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING

import torch

from tunesmith.recipe.quantize import Int8, Quantize

if TYPE_CHECKING:
    from transformers import PreTrainedModel

BLOCK = 64
"""Weights that share a scale in 4 bits."""
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
    """

    plain: int
    quantized: int
    largest: int


def measure_storage(model: PreTrainedModel, quantize: Quantize) -> Storage:
    """Add up the layers of a model that is not quantized yet, and may hold no numbers."""
    weights = find_frozen(model).values()
    return Storage(
        plain=sum(weight.numel() * weight.element_size() for weight in weights),
        quantized=sum(stored_bytes(quantize, *weight.shape) for weight in weights),
        largest=max((weight.numel() for weight in weights), default=0),
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


def stored_bytes(quantize: Quantize, out: int, width: int) -> int:
    """Count the bytes that a weight [out, width] takes."""
    numbers = out * width
    if isinstance(quantize, Int8):
        return numbers + 4 * out
    scales = ceil(numbers / BLOCK)
    double = scales + 4 * ceil(scales / SCALES) + SCALE_CODES
    return ceil(numbers / 2) + (double if quantize.double else 4 * scales) + CODES
