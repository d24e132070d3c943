"""A loss that compares what two models say, without ever holding all logits of either."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tunesmith.models.autocast import product_type, steepness, weighed
from tunesmith.models.head import Head, Targets, chunks, losses_of

Comparison = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""Tells from the logits of both, each [positions, vocab], how far the first is from the second in
nats, [positions], and the gradient of that with respect to the first's."""


@dataclass(frozen=True)
class Other:
    """What another model says of the same positions; it never learns.

    Attributes:
        given: what its head is given, [positions, hidden].
        alone: holds off what training adds to its head while that is asked.
    """

    given: torch.Tensor
    head: Head
    alone: Callable[[], AbstractContextManager[Any]] = nullcontext


@dataclass(frozen=True)
class Terms:
    """What is added up: targets that are imitated, and a distance to another model.

    Attributes:
        imitation: weight of the next-token loss, >= 0.
        distance: weight of the distance, >= 0.
    """

    compare: Comparison
    imitation: float
    distance: float


@dataclass(frozen=True)
class Sums:
    """Sums over positions in fp32, scalars; only the first carries a gradient."""

    total: torch.Tensor
    imitation: torch.Tensor
    distance: torch.Tensor


def compared_loss(
    head: Head, hidden: torch.Tensor, other: Other, targets: Targets, terms: Terms
) -> Sums:
    """Sum cross-entropy and distance over positions, both from the same logits.

    Logits of both models are computed some positions at a time, and their gradient at once with
    them, as in arXiv:2410.10989.

    Args:
        hidden: what the head of the model that learns is given, [positions, hidden].
    """
    trained = [given for given in head.module.parameters() if given.requires_grad]
    return Sums(
        *_Compared.apply(hidden, targets, head, other, terms, *trained)  # type: ignore[no-untyped-call]
    )


class _Compared(torch.autograd.Function):
    """The gradient with respect to logits is known; autograd takes it through a chunk's head."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        targets: Targets,
        head: Head,
        other: Other,
        terms: Terms,
        *trained: torch.Tensor,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        learns = any(ctx.needs_input_grad)
        steep = 1.0 if trained else steepness(product_type(hidden))
        sums = torch.zeros(2, dtype=torch.float32, device=hidden.device)
        to_hidden = torch.zeros_like(hidden) if learns else None
        to_trained = [torch.zeros_like(given, dtype=torch.float32) for given in trained]
        vocab = head.logits(hidden[:1]).shape[-1]
        for part in chunks(len(hidden), vocab):
            with torch.set_grad_enabled(learns):
                leaf = hidden[part].detach().requires_grad_(learns)
                logits = head.logits(leaf)
            with other.alone():
                others = other.head.logits(other.given[part])
            mine = logits.detach() if head.plain_weight is not None else logits.detach().clone()
            apart, away = terms.compare(mine, others)
            wanted = targets.at(part)
            if wanted.weights is not None:
                apart, away = apart * wanted.weights, away.mul_(wanted.weights[:, None])
            sums[1] += apart.sum()
            sums[0] += losses_of(mine, wanted, learns=learns).sum()
            if to_hidden is None:
                continue
            mine *= terms.imitation * steep
            mine[:, : away.shape[1]] += away.mul_(terms.distance * steep)
            to_hidden[part], *rest = torch.autograd.grad(logits, [leaf, *trained], mine)
            for whole, one in zip(to_trained, rest, strict=True):
                whole.add_(one)
        ctx.save_for_backward(to_hidden, *to_trained)
        ctx.dtypes, ctx.steep = [given.dtype for given in trained], steep
        imitation, distance = sums.clone().unbind()
        ctx.mark_non_differentiable(imitation, distance)
        total = terms.imitation * sums[0] + terms.distance * sums[1]
        return total, imitation, distance

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        to_hidden, *to_trained = ctx.saved_tensors
        found = [
            given.mul_(upper[0]).to(dtype)
            for given, dtype in zip(to_trained, ctx.dtypes, strict=True)
        ]
        return weighed(to_hidden, upper[0], ctx.steep), None, None, None, None, *found
