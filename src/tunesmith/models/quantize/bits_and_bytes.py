"""Layers of bitsandbytes that compute the same in training, in measuring and in answering.

As they come, they do not. On a CPU with bf16 instructions a 4-bit layer that was once in evaluation
mode packs its weight anew, and goes another way back from then on. An int8 layer rounds its inputs
too where it does not train, and sets columns apart by what else is in the batch. Both are left out:
a weight is put together whole, and multiplied with. It is put together as one long row: on a CPU
bitsandbytes 0.50 takes the wrong scales where the rows are no multiple of its blocks of 64.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit

from tunesmith.models.quantize.product import Whole
from tunesmith.recipe.quantize import FP4, NF4, Int8, Quantize

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

Misfit = tuple[str, tuple[int, ...], tuple[int, int]]
"""Name, shape found, shape wanted: as transformers tells of them."""


def describe(quantize: Quantize, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Say to transformers what bitsandbytes is to do."""
    from transformers import BitsAndBytesConfig

    if isinstance(quantize, Int8):
        return BitsAndBytesConfig(load_in_8bit=True)
    assert isinstance(quantize, NF4 | FP4)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize.kind,
        bnb_4bit_use_double_quant=quantize.double,
        bnb_4bit_compute_dtype=dtype,
    )


def find_misfits(model: torch.nn.Module) -> list[Misfit]:
    """Find the quantized weights of another shape than their layers: transformers checks none."""
    layers: list[tuple[str, Any]] = list(model.named_modules())
    shapes = {
        (name, layer.out_features, layer.in_features): _shape(layer)
        for name, layer in layers
        if isinstance(layer, Linear4bit | Linear8bitLt)
    }
    return [
        (f"{name}.weight", tuple(shape), (out, width))
        for (name, out, width), shape in shapes.items()
        if tuple(shape) != (out, width)
    ]


def _shape(layer: Any) -> Iterable[int]:
    weight = layer.weight
    found: Iterable[int] = (
        weight.quant_state.shape if isinstance(layer, Linear4bit) else weight.shape
    )
    return found


def use_whole_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Let the quantized layers of a model compute with whole weights."""
    layers: list[Any] = list(model.modules())
    for module in layers:
        if type(module) is Linear4bit:
            state = copy(module.weight.quant_state)
            state.dtype = dtype  # else it rounds to what was stored
            state.shape = torch.Size((1, module.out_features * module.in_features))
            module.__class__, module.as_one_row = Whole4bit, state
        elif type(module) is Linear8bitLt:
            module.init_8bit_state()
            module.__class__ = Whole8bit


def hold_4bit(layer: Any, weight: torch.Tensor, quantize: NF4 | FP4) -> None:
    """Quantize a weight [out, in] into a layer that computes with whole weights."""
    held = Params4bit(
        weight.contiguous(),
        requires_grad=False,
        quant_type=quantize.kind,
        compress_statistics=quantize.double,
        module=layer,
    ).to(weight.device)
    state = copy(held.quant_state)
    state.dtype, state.shape = layer.as_one_row.dtype, layer.as_one_row.shape
    layer.weight, layer.as_one_row = held, state


class Whole4bit(Whole, Linear4bit):  # type: ignore[misc]
    """A 4-bit layer."""

    weight: Any
    as_one_row: Any

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Put the weight together; [out, in]."""
        whole: torch.Tensor = dequantize_4bit(self.weight, self.as_one_row).to(dtype)
        return whole.view(self.out_features, self.in_features)


class Whole8bit(Whole, Linear8bitLt):  # type: ignore[misc]
    """A layer of whole numbers from -127 to 127 with a scale a row."""

    state: Any

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Put the weight together; [out, in]."""
        scale = self.state.SCB.mul(1 / 127)
        whole: torch.Tensor = self.state.CB.to(dtype).mul_(scale[:, None])
        return whole
