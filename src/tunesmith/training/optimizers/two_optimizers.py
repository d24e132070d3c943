"""Two optimizers that look like one to the loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


class TwoOptimizers(torch.optim.Optimizer):
    """Move some weights with one optimizer and the rest with another.

    Groups and memory are shared with the two, so that schedules and checkpoints see one.
    """

    def __init__(self, first: torch.optim.Optimizer, second: torch.optim.Optimizer | None) -> None:
        self.parts = [part for part in (first, second) if part is not None]
        groups = [group for part in self.parts for group in part.param_groups]
        super().__init__(groups, {"lr": first.defaults["lr"]})
        self._share()

    def _share(self) -> None:
        start = 0
        for part in self.parts:
            end = start + len(part.param_groups)
            part.param_groups = self.param_groups[start:end]
            part.state = self.state
            start = end

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move all weights."""
        loss = closure() if closure is not None else None
        for part in self.parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take groups and memory, and share them again."""
        super().load_state_dict(state_dict)
        self._share()
