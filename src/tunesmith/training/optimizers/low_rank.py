"""AdamW that remembers a few directions of each matrix's gradient: GaLore and APOLLO."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch

GROWTH = 1.01
"""How much longer a step may be than the one before (section 4 of arXiv:2412.05270)."""


class LowRankAdamW(torch.optim.Optimizer):
    """AdamW on a projection of the gradient, for groups that have a `rank`; plain AdamW for others.

    GaLore (Algorithm 2 of arXiv:2403.03507) projects on the gradient's strongest directions and
    takes AdamW's step there. APOLLO (Algorithm 1 of arXiv:2412.05270) projects at random, and only
    asks how long AdamW's step would be, for each channel or for the matrix.

    Args:
        seed: of the random projections.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        seed: int,
    ) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})
        weights = (weight for group in self.param_groups for weight in group["params"])
        self.places = {weight: place for place, weight in enumerate(weights)}
        self.seed = seed

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move every weight that has a gradient."""
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, group)
        return loss

    def _move(self, weight: torch.nn.Parameter, group: dict[str, Any]) -> None:
        memory, gradient = self.state[weight], weight.grad
        assert gradient is not None
        memory.setdefault("step", 0)
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        if "rank" in group:
            step = self._projected_step(weight, gradient, memory, group)
        else:
            step = _adam_step(gradient, memory, group)
        weight.add_(step, alpha=-group["lr"])

    def _projected_step(
        self,
        weight: torch.nn.Parameter,
        gradient: torch.Tensor,
        memory: dict[str, Any],
        group: dict[str, Any],
    ) -> torch.Tensor:
        tall = gradient.shape[0] > gradient.shape[1]
        wide = gradient.T if tall else gradient
        if memory["step"] % group["project_every"] == 0:
            memory["projection"] = self._choose(weight, wide, memory, group)
        directions = memory["projection"]
        low = directions.T @ wide
        step = _adam_step(low, memory, group)
        if group["lengths"] == "each":
            wide = directions @ step
        else:
            over = (0,) if group["lengths"] == "channel" else (0, 1)
            longer = step.norm(dim=over, keepdim=True) / (low.norm(dim=over, keepdim=True) + 1e-8)
            wide = _grow_slowly(wide * longer, memory)
        step = wide.T if tall else wide
        return step * float(group["scale"])

    def _choose(
        self,
        weight: torch.nn.Parameter,
        wide: torch.Tensor,
        memory: dict[str, Any],
        group: dict[str, Any],
    ) -> torch.Tensor:
        """Choose the directions to remember, [short side, rank]."""
        short = wide.shape[0]
        rank = min(group["rank"], short)
        if group["lengths"] == "each":
            left: torch.Tensor = torch.linalg.svd(wide.float(), full_matrices=False)[0]
            return left[:, :rank].to(wide.dtype).contiguous()
        count = memory["step"] // group["project_every"]
        seed = self.seed + 1_000_003 * self.places[weight] + 7_368_787_000_003 * count
        generator = torch.Generator().manual_seed(seed)  # the processor's: alike on every device
        return (torch.randn(short, rank, generator=generator) / math.sqrt(rank)).to(wide)


def _adam_step(
    gradient: torch.Tensor, memory: dict[str, Any], group: dict[str, Any]
) -> torch.Tensor:
    """Return AdamW's step for a gradient, before the learning rate."""
    beta1, beta2 = group["betas"]
    if "mean" not in memory:
        memory["mean"], memory["square"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    memory["step"] += 1
    mean, square = memory["mean"], memory["square"]
    mean.lerp_(gradient, 1 - beta1)
    square.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    spread = (square / (1 - beta2 ** memory["step"])).sqrt_().add_(group["eps"])
    step: torch.Tensor = mean / (1 - beta1 ** memory["step"]) / spread
    return step


def _grow_slowly(step: torch.Tensor, memory: dict[str, Any]) -> torch.Tensor:
    """Shorten a step that is much longer than the last one was."""
    length = step.norm()
    if "length" in memory:
        most = GROWTH * memory["length"]
        step = step * (most / length.clamp(min=1e-30)).clamp(max=1.0)
        length = torch.minimum(length, most)
    memory["length"] = length
    return step
