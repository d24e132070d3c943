"""Let a quantized layer hold another weight."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.recipe.quantize import FP4, HQQ, NF4, Quantize

if TYPE_CHECKING:
    import torch

    from tunesmith.models.quantize.product import Whole


def hold(layer: Whole, weight: torch.Tensor, quantize: Quantize) -> None:
    """Quantize a weight [out, in] into a layer, which keeps its place and its type of products."""
    if isinstance(quantize, NF4 | FP4):
        from tunesmith.models.quantize.bits_and_bytes import hold_4bit

        hold_4bit(layer, weight, quantize)
        return
    assert isinstance(quantize, HQQ)  # the recipe's rules let no other kind come here
    from tunesmith.models.quantize import half_quadratic

    grouped: Any = layer
    grouped.take(half_quadratic.quantize(weight, quantize))
    grouped.settle()
