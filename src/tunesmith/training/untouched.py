"""A loss in which no weight that learns took part."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def touched(total: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Give such a loss a gradient of zero.

    Rows of text say nothing to a projector or a tower that learns alone.
    """
    import torch

    if total.requires_grad or not torch.is_grad_enabled():
        return total
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    nothing = [weight.reshape(-1)[:0].sum().to(total) for weight in learned]
    return torch.stack([total, *nothing]).sum()
