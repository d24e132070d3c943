"""Layers of bitsandbytes that compute the same in training, in measuring and in answering.

As they come, they do not. On a CPU with bf16 instructions a 4-bit layer that was once in evaluation
mode packs its weight anew and passes no gradient on from then on. An int8 layer rounds its inputs
too where it does not train, and sets columns apart by what else is in the batch. Both are left out:
a weight is put together whole, and multiplied with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit, Linear8bitLt

from tunesmith.models.quantize.product import frozen_product
from tunesmith.recipe.quantize import Int8, Quantize

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig


def describe(quantize: Quantize, dtype: torch.dtype) -> BitsAndBytesConfig:
    """Say to transformers what bitsandbytes is to do."""
    from transformers import BitsAndBytesConfig

    if isinstance(quantize, Int8):
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=quantize.kind,
        bnb_4bit_use_double_quant=quantize.double,
        bnb_4bit_compute_dtype=dtype,
    )


def use_whole_weights(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Let the quantized layers of a model compute with whole weights."""
    layers: list[Any] = list(model.modules())
    for module in layers:
        if type(module) is Linear4bit:
            module.weight.quant_state.dtype = dtype  # else it rounds to what was stored
            module.__class__ = Whole4bit
        elif type(module) is Linear8bitLt:
            module.init_8bit_state()
            module.__class__ = Whole8bit


class Whole4bit(Linear4bit):  # type: ignore[misc]
    """A 4-bit layer; on a GPU the kernels of bitsandbytes do what is said above already."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        if x.is_cuda:
            theirs: torch.Tensor = super().forward(x)
            return theirs
        return frozen_product(x, self._whole, self.bias)

    def _whole(self, dtype: torch.dtype) -> torch.Tensor:
        whole: torch.Tensor = dequantize_4bit(self.weight, self.weight.quant_state)
        return whole.to(dtype)


class Whole8bit(Linear8bitLt):  # type: ignore[misc]
    """A layer of whole numbers from -127 to 127 with a scale a row."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[..., in] to [..., out]."""
        return frozen_product(x, self._whole, self.bias)

    def _whole(self, dtype: torch.dtype) -> torch.Tensor:
        scale = self.state.SCB.mul(1 / 127)
        whole: torch.Tensor = self.state.CB.to(dtype).mul_(scale[:, None])
        return whole
