"""Ask another model beside the one that learns: a teacher, or what it was before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.methods.learned import predict
from tunesmith.methods.method import Batch

if TYPE_CHECKING:
    import torch

    from tunesmith.models.compared import Other


def ask_other(other: torch.nn.Module, batch: Batch) -> Other:
    """Run another model up to its head, where a token is learned."""
    import torch

    from tunesmith.models.compared import Other

    with torch.no_grad():
        said = predict(other, batch)
    assert said.head is not None  # seen when it was loaded
    return Other(said.given, said.head)


def ask_before(model: torch.nn.Module, batch: Batch) -> Other:
    """Run a model as it was before training, its adapter switched off, dropping nothing."""
    from dataclasses import replace
    from functools import partial

    from tunesmith.models.adapter import without_adapter

    was_training = model.training
    model.eval()
    with without_adapter(model):
        other = ask_other(model, batch)
    model.train(was_training)
    if not any(weight.requires_grad for weight in other.head.module.parameters()):
        return other
    return replace(other, alone=partial(without_adapter, model))
