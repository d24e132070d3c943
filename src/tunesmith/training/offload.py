"""Keep in main memory what a GPU holds for the way back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SMALLEST = 2**20
"""Bytes from which on a tensor is moved; smaller ones cost more time than they free."""


@contextmanager
def kept_in_main_memory(model: torch.nn.Module) -> Iterator[None]:
    """Move what a forward pass keeps, but weights, from the model's device until it is needed.

    Where activations are computed twice these are the inputs of the layers (arXiv:1604.06174).
    Copies are queued between the products, so that nobody waits for them.
    """
    import torch

    weights = {given.untyped_storage().data_ptr() for given in model.parameters()}
    device = next(model.parameters()).device
    pinned = device.type == "cuda"

    def put_away(given: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor]:
        small = given.numel() * given.element_size() < SMALLEST
        if small or given.device != device or given.untyped_storage().data_ptr() in weights:
            return given
        kept = torch.empty(given.shape, dtype=given.dtype, pin_memory=pinned)
        return (kept.copy_(given, non_blocking=pinned),)

    def fetch(kept: torch.Tensor | tuple[torch.Tensor]) -> torch.Tensor:
        if isinstance(kept, torch.Tensor):
            return kept
        return kept[0].to(device, non_blocking=pinned)

    with torch.autograd.graph.saved_tensors_hooks(put_away, fetch):
        yield
