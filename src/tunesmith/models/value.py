"""The head of a policy that says what is still to be gained: one number a token."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from tunesmith.errors import ModelError, RunError
from tunesmith.models.inner import inner_model
from tunesmith.models.layout import find_layout
from tunesmith.models.reasons import reason_of

if TYPE_CHECKING:
    from collections.abc import Mapping

VALUE = "value_head"
FILE = "value_head.safetensors"


class ValueHead(torch.nn.Module):
    """A product with the hidden states, in fp32; it expects nothing at first."""

    def __init__(self, hidden: int, device: torch.device) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(hidden, device=device))
        self.bias = torch.nn.Parameter(torch.zeros((), device=device))

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Tell what is still to be gained, [..., hidden] to [...]."""
        # not as a matrix product, which autocast would round to 16 bits
        values: torch.Tensor = (hidden.float() * self.weight).sum(dim=-1) + self.bias
        return values


def add_value_head(policy: torch.nn.Module) -> None:
    """Put a head beside that of the policy; it learns with it, whatever its tuning.

    Raises:
        ModelError: if the policy's own head is of another kind, before which nothing is read.
    """
    if find_layout(policy).head is None:
        raise ModelError(
            "the model computes its logits itself, so nothing can be learned of its hidden states",
            hint="write method.name: grpo, which compares answers and needs no values",
            where="method.name",
        )
    hidden: int = inner_model(policy).config.get_text_config().hidden_size
    device = next(policy.parameters()).device
    policy.register_module(VALUE, ValueHead(hidden, device))


def find_value_head(policy: torch.nn.Module) -> ValueHead | None:
    """Find the head that tells values; None for a policy that has none."""
    found = policy._modules.get(VALUE)
    return found if isinstance(found, ValueHead) else None


def is_of_value(name: str) -> bool:
    """Whether a weight of a policy belongs to that head."""
    return name.startswith(f"{VALUE}.")


def weights_without_value(policy: torch.nn.Module) -> Mapping[str, torch.Tensor]:
    """List the weights of a policy that others read."""
    return {name: one for name, one in policy.state_dict().items() if not is_of_value(name)}


def save_value_head(policy: torch.nn.Module, folder: Path) -> None:
    """Write the head into a file of its own, if there is one: no one who answers needs it."""
    head = find_value_head(policy)
    if head is not None:
        weights = {name: one.contiguous() for name, one in head.state_dict().items()}
        save_file(weights, str(folder / FILE))


def restore_value_head(policy: torch.nn.Module, folder: Path) -> None:
    """Put back a saved head, if the policy has one, to the bit.

    Raises:
        RunError: if it is not there, or damaged.
    """
    head = find_value_head(policy)
    if head is None:
        return
    try:
        head.load_state_dict(load_file(folder / FILE))
    except (OSError, SafetensorError, RuntimeError) as problem:
        raise RunError(
            f"the value head cannot be put back: {reason_of(problem)}",
            hint="resume from another checkpoint: rename this one",
            where=str(folder / FILE),
        ) from problem
