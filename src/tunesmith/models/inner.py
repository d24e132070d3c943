"""See a language model through its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def inner_model(model: torch.nn.Module) -> Any:
    """Return the architecture that an adapter was put around, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model
