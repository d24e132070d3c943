"""Whole numbers that keep a layer's answers, not its weights (GPTQ, arXiv:2210.17323).

Columns are rounded one after another, those first whose inputs are largest, and what rounding adds
to the answers is taken back by the columns that are still whole: equations 2 and 3 of the paper,
with the Cholesky factor of the inverse that its section 3.3 puts in their place. Scales are chosen
before, group by group, so columns of a group stay side by side and no reader has to look them up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

from tunesmith.models.quantize.grouped import Groups
from tunesmith.models.quantize.half_quadratic import LEAST_SCALE

Bits = Literal[2, 3, 4, 8]
DAMPING = 0.01
"""What is added to the squares of inputs, as a share of their mean."""
MOST_DAMPING = 1e3
BLOCK = 128
"""Columns whose errors are taken back together by those behind them."""
NARROWER = tuple(1 - step / 20 for step in range(11))
"""By how much scales are tried smaller than what the largest weight asks for."""


@dataclass(frozen=True)
class GPTQ:
    """How a weight is packed.

    Attributes:
        group: columns that share a scale.
    """

    bits: Bits
    group: int

    @property
    def symmetric(self) -> bool:
        """Whether zero is the middle of all numbers, as fast kernels ask of 4 and 8 bits."""
        return self.bits >= 4


def quantize(weight: torch.Tensor, squares: torch.Tensor, options: GPTQ) -> Groups:
    """Choose whole numbers, scales and zeros for a weight.

    Args:
        weight: [out, in].
        squares: products of its inputs with each other, summed over tokens, [in, in].
    """
    whole, importance = weight.float(), squares.diagonal().float()
    scale, zero = _choose_scales(whole, importance, options)
    order = importance.argsort(descending=True, stable=True)
    columns = torch.arange(whole.shape[1], device=whole.device)
    of = (columns // options.group)[order]
    factor = _factor(squares.float()[order][:, order])
    grid = _Grid(scale[:, of], zero[:, of], 2**options.bits - 1)
    codes = _round_in_turn(whole[:, order].clone(), factor, grid)
    return Groups(
        codes=codes[:, order.argsort()].to(torch.uint8),
        bits=options.bits,
        scale=scale.flatten().half(),
        zero=zero.flatten().to(torch.uint8),
        size=options.group,
    )


@dataclass(frozen=True)
class _Grid:
    """What weights are rounded to.

    Attributes:
        scale, zero: of each weight, [out, in].
    """

    scale: torch.Tensor
    zero: torch.Tensor
    most: int

    def round(self, weight: torch.Tensor, at: int | slice) -> torch.Tensor:
        """Return the codes of some columns."""
        scale, zero = self.scale[:, at], self.zero[:, at]
        return (weight / scale + zero).round().clamp(0, self.most)

    def value(self, codes: torch.Tensor, at: int | slice) -> torch.Tensor:
        """Return what codes of some columns mean."""
        return (codes - self.zero[:, at]) * self.scale[:, at]


def _round_in_turn(weight: torch.Tensor, factor: torch.Tensor, grid: _Grid) -> torch.Tensor:
    """Round columns from left to right, each error taken back by what is right of it."""
    codes = torch.empty_like(weight)
    width = weight.shape[1]
    for first in range(0, width, BLOCK):
        end = min(first + BLOCK, width)
        errors = torch.empty_like(weight[:, first:end])
        for at in range(first, end):
            codes[:, at] = grid.round(weight[:, at], at)
            error = (weight[:, at] - grid.value(codes[:, at], at)) / factor[at, at]
            weight[:, at:end] -= error[:, None] * factor[at, at:end]
            errors[:, at - first] = error
        weight[:, end:] -= errors @ factor[first:end, end:]
    return codes


def _factor(squares: torch.Tensor) -> torch.Tensor:
    """Return the upper Cholesky factor of the inverse, [in, in]; inputs that never come are 1."""
    diagonal = squares.diagonal()
    absent = diagonal == 0
    share, mean = DAMPING, diagonal.mean().clamp(min=torch.finfo(torch.float32).tiny)
    while share <= MOST_DAMPING:
        damped = squares + torch.diag(torch.where(absent, mean, share * mean))
        lower, failed = torch.linalg.cholesky_ex(damped)
        if not failed:
            upper: torch.Tensor
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
            if not failed and bool(torch.isfinite(upper).all()):
                return upper
        share *= 10
    return torch.eye(len(squares), device=squares.device)


def _choose_scales(
    weight: torch.Tensor, importance: torch.Tensor, options: GPTQ
) -> tuple[torch.Tensor, torch.Tensor]:
    """Choose the scale of each group by which rounding its weights errs least.

    Returns:
        scale and zero, [out, groups] each.
    """
    groups = weight.view(len(weight), -1, options.group)
    cost, most = importance.view(-1, options.group), 2**options.bits - 1
    low, high = groups.amin(2).clamp(max=0), groups.amax(2).clamp(min=0)
    if options.symmetric:
        high = torch.maximum(-low, high)
        low = -high
    best_scale, best_zero, least = low, low, torch.full_like(low, torch.inf)
    for share in NARROWER:
        scale = ((high - low) * (share / most)).clamp(min=LEAST_SCALE).half().float()
        zero = (-low * share / scale).round().clamp(1, most)  # 0 would be stored as -1
        if options.symmetric:
            zero = torch.full_like(scale, 2.0 ** (options.bits - 1))
        codes = (groups / scale[..., None] + zero[..., None]).round().clamp(0, most)
        errors = (codes - zero[..., None]) * scale[..., None] - groups
        error = (errors.square() * cost).sum(2)
        better = error < least
        best_scale = torch.where(better, scale, best_scale)
        best_zero = torch.where(better, zero, best_zero)
        least = torch.where(better, error, least)
    return best_scale, best_zero
