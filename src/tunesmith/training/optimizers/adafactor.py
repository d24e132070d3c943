"""Adafactor of transformers, whose memory stays exact over a resume."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Adafactor


class ExactAdafactor(Adafactor):
    """Keep the memory in fp32 when it is loaded; torch would round it to a 16-bit weight's type."""

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the memory as it was saved."""
        super().load_state_dict(state_dict)
        weights = [weight for group in self.param_groups for weight in group["params"]]
        for place, memory in state_dict["state"].items():
            for name, value in memory.items():
                if isinstance(value, torch.Tensor):
                    self.state[weights[place]][name] = value.to(weights[place].device)
