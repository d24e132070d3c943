"""Let ranks move during training."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback

from tunesmith.models.allocation import Allocation


class Allocating(TrainerCallback):
    """Adds to the gradients of each update, and takes ranks away after it."""

    def __init__(self, allocation: Allocation, *, is_first: bool) -> None:
        self.allocation, self.is_first = allocation, is_first

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Pull at right angles; gradients are added up, over processes too."""
        if self.is_first:
            self.allocation.penalize()

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Measure and cut while the gradients are there."""
        self.allocation.update(state.global_step + 1)
