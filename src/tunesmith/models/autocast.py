"""What products are computed in."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def product_type(given: torch.Tensor) -> torch.dtype:
    """The type that a product with a tensor is computed in, under autocast or not."""
    import torch

    kind = given.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else given.dtype
