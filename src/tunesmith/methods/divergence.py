"""How far what one model expects is from what another one does."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def divergences(
    logits: torch.Tensor, others: torch.Tensor, *, beta: float = 0.0, temperature: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the generalised Jensen-Shannon divergence, equation 1 of arXiv:2306.13649.

    It is multiplied with the square of the temperature, as in arXiv:1503.02531, so that its
    gradient is as large at any. Vocabularies that are filled up to different sizes are compared
    as far as both reach.

    Args:
        logits: of the model that learns, [positions, vocab].
        others: of the one it is compared with, [positions, vocab].
        beta: 0 for KL(other, model), 1 for KL(model, other); between them both are compared with
            beta * other + (1 - beta) * model.
        temperature: what logits are divided by, > 0.

    Returns:
        Nats, [positions], and their gradient with respect to the logits, [positions, vocab of
        both].
    """
    import torch

    vocab = min(logits.shape[-1], others.shape[-1])
    mine = torch.log_softmax(logits[:, :vocab] / temperature, dim=-1)
    theirs = torch.log_softmax(others[:, :vocab] / temperature, dim=-1)
    shares = mine.exp()
    if beta == 0.0:
        expected = theirs.exp()
        nats = (expected * (theirs - mine)).sum(dim=-1)
        return nats * temperature**2, (shares - expected) * temperature
    nats, middle, share = torch.zeros_like(mine[:, 0]), theirs, 1.0
    if beta < 1.0:
        middle = torch.logaddexp(mine + math.log1p(-beta), theirs + math.log(beta))
        nats, share = beta * (theirs.exp() * (theirs - middle)).sum(dim=-1), 1.0 - beta
    gap = mine - middle
    mean = (shares * gap).sum(dim=-1)
    away = share * shares * (gap - mean[:, None])
    return (nats + share * mean) * temperature**2, away * temperature
