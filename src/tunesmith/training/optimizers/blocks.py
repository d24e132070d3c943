"""AdamW on one block of weights after another (BAdam, Luo et al. 2024, arXiv:2404.02827)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

SWITCHES = "updates"
"""Where a group remembers how many updates were made."""


class BlockAdamW(torch.optim.AdamW):
    """Train one block for some steps, forget its memory, and go on to the next.

    Args:
        blocks: the weights of each, in the order of their turns.
        switch_every: updates of a turn.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        *,
        blocks: Sequence[Sequence[torch.nn.Parameter]],
        switch_every: int,
        **options: Any,
    ) -> None:
        self.blocks, self.switch_every = blocks, switch_every
        super().__init__(groups, **options, fused=True)
        for group in self.param_groups:
            group[SWITCHES] = 0
        self._open()

    def _open(self) -> None:
        """Let only the block whose turn it is learn."""
        turn = self.param_groups[0][SWITCHES] // self.switch_every % len(self.blocks)
        for number, block in enumerate(self.blocks):
            for weight in block:
                weight.requires_grad_(number == turn)
                if number != turn:
                    weight.grad = None
                    self.state.pop(weight, None)

    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Move the block whose turn it is."""
        loss = super().step(closure)
        for group in self.param_groups:
            group[SWITCHES] += 1
        self._open()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on in the turn that was saved."""
        super().load_state_dict(state_dict)
        self._open()
