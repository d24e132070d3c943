"""Add up the gradients of processes that train together, and let every loss have one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from tunesmith.methods.ranks import Ranks

if TYPE_CHECKING:
    import torch

BUCKET_BYTES = 32 * 1024**2
"""Gradients that are sent at once; more of them in one copy take memory and save no time."""


def sum_gradients(weights: Iterable[torch.nn.Parameter], ranks: Ranks) -> None:
    """Put the sum over all processes in the place of each weight's gradient.

    A weight that no process has a gradient for keeps none, as if one process had done it all.
    """
    import torch

    learning = [weight for weight in weights if weight.requires_grad]
    held = ranks.total(torch.tensor([int(weight.grad is not None) for weight in learning]))
    found = []
    for weight, processes in zip(learning, held.tolist(), strict=True):
        if weight.grad is None and processes:
            weight.grad = torch.zeros_like(weight)
        if weight.grad is not None:
            found.append(weight.grad)
    for bucket in _buckets(found):
        _sum(bucket, ranks)


def touched(total: torch.Tensor, model: torch.nn.Module) -> torch.Tensor:
    """Give a loss in which no weight that learns took part a gradient of zero.

    Rows of text say nothing to a projector or a tower that learns alone.
    """
    import torch

    if total.requires_grad or not torch.is_grad_enabled():
        return total
    learned = [weight for weight in model.parameters() if weight.requires_grad]
    nothing = [weight.reshape(-1)[:0].sum().to(total) for weight in learned]
    return torch.stack([total, *nothing]).sum()


def _buckets(gradients: list[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Group gradients of a kind, in order; a large one stands alone."""
    bucket: list[torch.Tensor] = []
    for gradient in gradients:
        size = sum(one.nbytes for one in bucket) + gradient.nbytes
        if bucket and (size > BUCKET_BYTES or gradient.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(gradient)
    if bucket:
        yield bucket


def _sum(bucket: list[torch.Tensor], ranks: Ranks) -> None:
    import torch

    if len(bucket) == 1 and bucket[0].is_contiguous():
        ranks.total(bucket[0])
        return
    flat = ranks.total(torch.cat([gradient.reshape(-1) for gradient in bucket]))
    parts = torch.split(flat, [gradient.numel() for gradient in bucket])
    for gradient, part in zip(bucket, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
