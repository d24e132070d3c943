"""The loss of every learned token, without ever holding all logits."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from tunesmith.models.autocast import product_type, steepness, weighed
from tunesmith.models.head import Head, Targets, chunks, losses_of


def token_losses(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Compute the cross-entropy at each position, which a method weighs as it likes.

    Logits are computed some positions at a time. Where the head is frozen their gradient is
    computed at once with them, as in arXiv:2410.10989; a head that learns computes them again on
    the way back, since only then it is known how much each position counts.

    Args:
        hidden: what the head is given, [positions, hidden].
        targets: token ids, [positions].

    Returns:
        Nats in fp32, [positions].
    """
    if len(targets) == 0:
        return hidden.float().sum(dim=-1)
    if not any(weight.requires_grad for weight in head.module.parameters()):
        losses: torch.Tensor = _FrozenHead.apply(hidden, targets, head)  # type: ignore[no-untyped-call]
        return losses
    vocab = head.logits(hidden[:1].detach()).shape[-1]
    found = [
        checkpoint(_losses, head, hidden[part], targets[part], use_reentrant=False)
        for part in chunks(len(targets), vocab)
    ]
    return torch.cat(found)


def _losses(head: Head, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return cross_entropy(head.logits(hidden), targets, reduction="none")


class _FrozenHead(torch.autograd.Function):
    """Cross-entropy after a head that does not learn; positions do not touch each other."""

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, targets: torch.Tensor, head: Head) -> torch.Tensor:
        learns = ctx.needs_input_grad[0]
        steep = steepness(product_type(hidden))
        to_hidden = torch.empty_like(hidden) if learns else None
        found = []
        weight = head.plain_weight
        vocab = head.logits(hidden[:1]).shape[-1]
        for part in chunks(len(targets), vocab):
            if weight is not None:
                logits = head.logits(hidden[part])
                found.append(losses_of(logits, Targets(targets[part]), learns=learns))
                if to_hidden is not None:
                    gradient = logits if steep == 1.0 else logits.mul_(steep)
                    to_hidden[part] = gradient.to(hidden.dtype) @ weight.to(hidden.dtype)
                continue
            with torch.set_grad_enabled(learns):
                leaf = hidden[part].detach().requires_grad_(learns)
                losses = _losses(head, leaf, targets[part])
            found.append(losses.detach())
            if to_hidden is not None:
                upper = torch.full_like(losses, steep)
                (to_hidden[part],) = torch.autograd.grad(losses, leaf, upper)
        ctx.save_for_backward(to_hidden)
        ctx.steep = steep
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        (to_hidden,) = ctx.saved_tensors
        return weighed(to_hidden, upper[0][:, None], ctx.steep), None, None
