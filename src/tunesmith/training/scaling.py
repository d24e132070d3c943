"""Losses scaled so that gradients in fp16 do not vanish (arXiv:1710.03740).

Gradients are scaled back before they are measured, shortened and used. Where one overflows, the
update is left out and the scale halved; after 2,000 updates without one it is doubled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunesmith.logs import logger

if TYPE_CHECKING:
    import torch

log = logger(__name__)
LEAST = 1.0
"""Below it the gradients themselves, not the scaled ones, are more than fp16 holds."""

TOO_LARGE = "write compute.precision: bf16 or fp32, since fp16 holds no more than 65,504, or "
"""What else to do where a number is none."""


class Scaling:
    """The scale of one run, which the loop underneath keeps with its checkpoints.

    Attributes:
        left_out: updates that overflowed since this was asked last.
        newest: the last of them, 0 for none.
    """

    def __init__(self, accelerator: Any) -> None:
        import torch

        if accelerator.scaler is None:  # accelerate knows of fp16 on GPUs alone
            accelerator.scaler = torch.amp.GradScaler("cpu")
            accelerator.native_amp = True
        self.scaler: torch.amp.GradScaler = accelerator.scaler
        self.left_out = self.newest = 0

    @property
    def scale(self) -> float:
        """What losses are multiplied with now."""
        return self.scaler.get_scale()

    def leave_out(self, step: int) -> bool:
        """Count an update that overflowed, and say whether a smaller scale may help the next."""
        if self.scale <= LEAST:
            return False
        self.left_out, self.newest = self.left_out + 1, step
        log.info(
            "update %d left out: at a scale of %g its gradients overflow fp16", step, self.scale
        )
        return True

    def take(self) -> dict[str, float]:
        """Tell the scale, and how many updates were left out since this was asked last."""
        found = {"loss_scale": self.scale, "updates_left_out": float(self.left_out)}
        self.left_out = 0
        return found
