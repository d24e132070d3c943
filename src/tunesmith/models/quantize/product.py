"""A product with a frozen weight that is put together only for as long as it is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import linear

from tunesmith.models.autocast import product_type

Weight = Callable[[torch.dtype], torch.Tensor]
"""Puts a weight together in a type; [out, in]."""


def frozen_product(x: torch.Tensor, weight: Weight, bias: torch.Tensor | None) -> torch.Tensor:
    """Compute x W' + bias and keep neither x nor W for the way back; [..., in] to [..., out]."""
    dtype = product_type(x)
    product: Callable[..., torch.Tensor] = _Product.apply
    return product(x.to(dtype), weight, None if bias is None else bias.to(dtype))


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: Weight, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.weight = weight
        with torch.autocast(x.device.type, enabled=False):
            return linear(x, weight(x.dtype), bias)

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        return upper[0] @ ctx.weight(upper[0].dtype), None, None
