"""What products are computed in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunesmith.hardware import Precision

STEEP = 256.0
"""What gradients are multiplied with where they are kept in fp16 before the loss is scaled: shares
of single tokens would vanish below 6e-8, and no sum over a vocabulary comes near 65,504 so."""


def number_type(precision: Precision) -> torch.dtype:
    """The type that products are computed in, and frozen weights are kept in."""
    import torch

    if precision == "fp32":
        return torch.float32
    return torch.float16 if precision == "fp16" else torch.bfloat16


def mixing(precision: Precision, device: str) -> AbstractContextManager[Any]:
    """Compute products in 16 bits while weights that learn stay in fp32, if that is asked for."""
    import torch

    mixed = precision in ("bf16", "fp16")
    return torch.autocast(device, number_type(precision)) if mixed else nullcontext()


def product_type(given: torch.Tensor) -> torch.dtype:
    """The type that a product with a tensor is computed in, under autocast or not."""
    import torch

    kind = given.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given.dtype


def steepness(dtype: torch.dtype) -> float:
    """What a gradient of this type is multiplied with while it is kept."""
    import torch

    return STEEP if dtype == torch.float16 else 1.0


def weighed(gradient: torch.Tensor, upper: torch.Tensor, steep: float = 1.0) -> torch.Tensor:
    """Multiply a kept gradient by that of what was computed from it, which fp16 may not hold."""
    import torch

    if gradient.dtype != torch.float16:
        return gradient * (upper if steep == 1.0 else upper / steep).to(gradient.dtype)
    return (gradient.float() * (upper.float() / steep)).to(gradient.dtype)
