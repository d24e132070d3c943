"""See a language model through its adapter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def inner_model(model: torch.nn.Module) -> Any:
    """Return the architecture that an adapter was put around, or the model itself."""
    from peft import PeftModel

    return model.get_base_model() if isinstance(model, PeftModel) else model


def reads_images(model: torch.nn.Module) -> bool:
    """Whether what goes into a model are pixels."""
    inner = inner_model(model)
    return bool(inner.main_input_name == "pixel_values")


def token_ends(model: torch.nn.Module) -> tuple[Any, Any]:
    """Return the embeddings and the head of a language model; None where there is none."""
    if reads_images(model):
        return None, None
    inner = inner_model(model)
    return inner.get_input_embeddings(), inner.get_output_embeddings()
