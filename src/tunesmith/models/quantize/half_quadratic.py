"""Half-quadratic quantization, which needs no data (Badri & Shaji 2023).

Scales come from the least and the largest weight of a group. Zeros are moved so that the errors
have a small p-norm with p < 1, which leaves large errors to few weights: half of a round shrinks
the errors towards zero, the other half averages what is left.
"""

from __future__ import annotations

import torch

from tunesmith.models.quantize.grouped import Groups
from tunesmith.recipe.quantize import HQQ

NORM, PULL, TIGHTEN, ROUNDS = 0.7, 10.0, 1.01, 20
"""p, the weight of the shrunken errors at first, by what it grows a round, most rounds."""
LEAST_SCALE = 2.0**-14
"""Smaller ones would lose bits in fp16, which is what scales are kept in."""


def quantize(weight: torch.Tensor, options: HQQ) -> Groups:
    """Choose whole numbers, scales and zeros for a weight [out, in]."""
    given = weight.float().flatten()
    missing = -len(given) % options.group
    filled = torch.cat([given, given[-1:].expand(missing)]) if missing else given
    groups = filled.view(-1, options.group)
    most = 2**options.bits - 1
    low, high = groups.amin(1, keepdim=True), groups.amax(1, keepdim=True)
    scale = ((high - low) / most).clamp(min=LEAST_SCALE).half().float()
    zero = _move_zero(groups, scale, -low / scale, most).half().float()
    codes = _round(groups, scale, zero, most).flatten()[: len(given)]
    return Groups(
        codes=codes.to(torch.uint8).view(weight.shape),
        bits=options.bits,
        scale=scale.flatten().half(),
        zero=zero.flatten().half(),
        size=options.group,
    )


def _round(
    groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, most: int
) -> torch.Tensor:
    return (groups / scale + zero).round_().clamp_(0, most)


def _move_zero(
    groups: torch.Tensor, scale: torch.Tensor, zero: torch.Tensor, most: int
) -> torch.Tensor:
    """Take rounds for as long as the mean error of all groups gets smaller."""
    least, best, pull = float("inf"), zero, PULL
    for _ in range(ROUNDS):
        codes = _round(groups, scale, zero, most)
        errors = groups - (codes - zero) * scale
        mean = float(errors.abs().mean())
        if mean >= least:
            break
        least, best = mean, zero
        size = errors.abs()
        shrunken = (size - size.pow(NORM - 1) / pull).clamp_(min=0).mul_(errors.sign())
        zero = (codes - (groups - shrunken) / scale).mean(1, keepdim=True)
        pull *= TIGHTEN
    return best
