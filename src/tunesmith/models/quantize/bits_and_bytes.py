"""Layers of bitsandbytes that compute the same in training, in measuring and in answering.

As they come, they do not. On a CPU with bf16 instructions a 4-bit layer that was once in evaluation
mode packs its weight anew, and goes another way back from then on. An int8 layer rounds its inputs
too where it does not train, and sets columns apart by what else is in the batch. Both are left out:
a weight is put together whole, and multiplied with. It is put together as one long row: on a CPU
bitsandbytes 0.50 takes the wrong scales where the rows are no multiple of its blocks of 64.
"""

from __future__ import annotations

from copy import copy
from math import ceil, prod
from typing import TYPE_CHECKING, Any

import torch
from bitsandbytes.functional import dequantize_4bit, int8_vectorwise_quant, quantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt, Params4bit

from tunesmith.models.quantize.product import Whole
from tunesmith.models.quantize.storage import BLOCK
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


def pack(
    weight: torch.Tensor, quantize: NF4 | FP4 | Int8
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Store a weight [out, in] as transformers does.

    Returns:
        its tensors, by what follows the layer's name, and what they mean, [out, in].
    """
    if isinstance(quantize, Int8):
        codes, scale, _ = int8_vectorwise_quant(weight.half())
        layout = torch.tensor(0, dtype=torch.uint8)  # row by row
        whole = codes * scale.mul(1 / 127)[:, None]
        return {"weight": codes, "SCB": scale, "weight_format": layout}, whole
    flat = weight.reshape(1, -1)
    codes, state = quantize_4bit(
        flat, quant_type=quantize.kind, compress_statistics=quantize.double, blocksize=BLOCK
    )
    whole = dequantize_4bit(codes, state).view_as(weight)
    state.shape = weight.shape
    beside = {f"weight.{name}": tensor for name, tensor in state.as_dict(packed=True).items()}
    return {"weight": codes, **beside}, whole


def find_misfits(model: torch.nn.Module) -> list[Misfit]:
    """Find the quantized weights of another shape than their layers: transformers checks none."""
    layers: list[tuple[str, Any]] = list(model.named_modules())
    shapes = {
        (name, layer.out_features, layer.in_features): _shape(layer)
        for name, layer in layers
        if isinstance(layer, Linear4bit | Linear8bitLt)
    }
    return [
        (f"{name}.weight", shape, (out, width))
        for (name, out, width), shape in shapes.items()
        if shape != (out, width)
    ]


def _shape(layer: Any) -> tuple[int, ...]:
    """Return the shape of a weight; that of its codes or scales where they are not as many."""
    weight = layer.weight
    if isinstance(layer, Linear8bitLt):
        scales = weight.SCB
        return tuple(weight.shape if scales is None or len(scales) == len(weight) else scales.shape)
    state = weight.quant_state
    numbers = prod(state.shape)
    if weight.numel() != ceil(numbers / 2):
        return tuple(weight.shape)
    scales = state.absmax
    enough = scales.numel() == ceil(numbers / state.blocksize)
    return tuple(state.shape if enough else scales.shape)


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
