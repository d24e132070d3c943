"""Schedule-free AdamW whose way through training is not changed by looking at the average."""

from __future__ import annotations

import torch
from schedulefree import AdamWScheduleFree


class Averaged(AdamWScheduleFree):  # type: ignore[misc]
    """Show the averaged weights, and go on from exactly where training was.

    The package computes the way back from the average, and rounds: a run that was measured or
    saved would end in other bits than one that was not. Here the weights are put aside, and saved
    with the optimizer's memory.
    """

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averaged weights in the place of those that learn."""
        for group in self.param_groups:
            for weight in group["params"]:
                if group["train_mode"] and "z" in self.state[weight]:
                    self.state[weight]["aside"] = weight.clone()
        super().eval()

    @torch.no_grad()
    def train(self) -> None:
        """Put the weights that learn back."""
        for group in self.param_groups:
            group["train_mode"] = True
            for weight in group["params"]:
                if "aside" in self.state[weight]:
                    weight.copy_(self.state[weight].pop("aside"))
