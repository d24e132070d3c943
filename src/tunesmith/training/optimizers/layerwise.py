"""Move each weight as soon as its gradient is known (LOMO, Lv et al. 2023, arXiv:2306.09782)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class Layerwise:
    """Step weight by weight on the way back, and free each gradient, so that few are there at once.

    Args:
        optimizer: keeps memory for each weight alone.
        diverged: what to raise where a gradient is no number.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, diverged: Callable[[], Exception]) -> None:
        self.optimizer, self.diverged = optimizer, diverged
        self.is_last_batch = False
        self.square = 0.0
        for group in optimizer.param_groups:
            for place, weight in enumerate(group["params"]):
                weight.register_post_accumulate_grad_hook(self._mover(group["params"], place))

    def _mover(
        self, members: list[torch.nn.Parameter], place: int
    ) -> Callable[[torch.Tensor], None]:
        def move(_: torch.Tensor) -> None:
            if self.is_last_batch:
                self._move(members[place])

        return move

    def _move(self, weight: torch.nn.Parameter) -> None:
        assert weight.grad is not None
        length = float(weight.grad.norm())
        if not math.isfinite(length):
            raise self.diverged()
        self.square += length**2
        groups = self.optimizer.param_groups
        own = next(g for g in groups if any(weight is member for member in g["params"]))
        self.optimizer.param_groups = [{**own, "params": [weight]}]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        weight.grad = None

    def take_norm(self) -> float:
        """Return how long the gradients of the update were together, and begin anew."""
        norm, self.square = math.sqrt(self.square), 0.0
        return norm
