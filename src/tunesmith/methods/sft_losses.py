"""How much each token counts in the losses of sft that do not count all alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

LIKELIEST = 20
"""Tokens whose entropy eaft looks at."""
HIGHEST = 3.0
"""About the logarithm of their number: the entropy where all are as likely."""


def probability_weights(expected: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Weigh each token by the probability it has already (DFT, equation 9 of arXiv:2508.05629).

    Args:
        expected: probabilities, [positions, vocab].
        targets: token ids, [positions].
    """
    import torch

    return expected[torch.arange(len(targets), device=targets.device), targets]


def entropy_weights(
    expected: torch.Tensor, _targets: torch.Tensor, *, power: float
) -> torch.Tensor:
    """Weigh each token by how undecided the model is before it (EAFT, arXiv:2601.02151).

    The entropy is that of the likeliest 20 tokens among each other, which is what the weights of
    the paper mean: at most about 1. The entropy of all tokens would be as cheap, and would know no
    such bound.
    """
    import torch

    likeliest = expected.topk(min(LIKELIEST, expected.shape[-1]), dim=-1).values
    shares = likeliest / likeliest.sum(dim=-1, keepdim=True)
    entropy: torch.Tensor = torch.special.entr(shares).sum(dim=-1)
    return (entropy / HIGHEST).pow(power)
