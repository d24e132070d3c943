"""Products with a frozen weight that is put together only for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from tunesmith.models.autocast import product_type
from tunesmith.models.room import multiply_into, take_room

Put = Callable[[torch.dtype], torch.Tensor]
"""Puts a weight together in a type; [out, in]."""


class Whole(torch.nn.Module):
    """A quantized linear layer that multiplies with its whole weight; it has a bias or None."""

    in_features: int
    out_features: int
    bias: torch.Tensor | None

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Put the weight together; [out, in]."""
        raise NotImplementedError

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Compute x W' + bias; [..., in] to [..., out]."""
        dtype, bias = product_type(x), self.bias
        product: Callable[..., torch.Tensor] = _Product.apply
        flat = x.to(dtype).reshape(-1, x.shape[-1])
        out = product(flat, None if bias is None else bias.to(dtype), self)
        return out.view(*x.shape[:-1], out.shape[-1])


class _Product(torch.autograd.Function):
    """Keeps neither x nor W for the way back; what comes out may be added to in place."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, bias: Any, layer: Whole) -> torch.Tensor:
        ctx.layer = layer
        with torch.autocast(x.device.type, enabled=False):
            out = multiply(x, layer.whole, layer.out_features, transposed=True)
        if bias is not None:
            out.add_(bias)
        return out

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        to_x = multiply(upper[0], ctx.layer.whole, ctx.layer.in_features, transposed=False)
        return to_x, None, None


def multiply(x: torch.Tensor, put: Put, width: int, *, transposed: bool) -> torch.Tensor:
    """Compute x W' or x W; [rows, any] to [rows, width].

    Room for the result is taken before the weight's: the weight then comes and goes at the end of
    the heap, where it leaves no hole that later, larger results do not fit into. With the holes a
    model of 100 million weights takes 0.6 GiB more.
    """
    room = take_room(x, len(x), width)
    weight = put(x.dtype)
    return multiply_into(room, x, weight.t() if transposed else weight)
