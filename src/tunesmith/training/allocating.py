"""Let ranks move during training."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from tunesmith.models.allocation import Allocation
from tunesmith.training.scaling import Scaling


class Allocating(TrainerCallback):
    """Adds to the gradients of each update, scaled as they are, and takes ranks away after it."""

    def __init__(self, allocation: Allocation, scaling: Scaling | None, *, is_first: bool) -> None:
        self.allocation, self.scaling, self.is_first = allocation, scaling, is_first

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pull at right angles; gradients are added up, over processes too."""
        if self.is_first:
            self.allocation.penalize(self.scaling.scale if self.scaling else 1.0)

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure and cut while the gradients are there; those that overflowed tell nothing."""
        step = state.global_step + 1
        left_out = self.scaling is not None and self.scaling.newest == step
        self.allocation.update(step, learn=not left_out)
