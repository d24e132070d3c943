"""Turn quantized layers back into plain ones."""

from __future__ import annotations

from typing import Any

import torch


def make_whole(model: torch.nn.Module, dtype: torch.dtype) -> None:
    """Put plain layers, each with its weight put together, in the places of quantized ones."""
    from transformers.pytorch_utils import Conv1D

    from tunesmith.models.quantize.product import Whole

    quantized = {n: module for n, module in model.named_modules() if isinstance(module, Whole)}
    for name, module in quantized.items():
        given: Any = module
        turned = issubclass(given.source_cls, Conv1D)
        weight = given.whole(dtype)
        with torch.device("meta"):
            plain: Any = (
                Conv1D(given.out_features, given.in_features)
                if turned
                else torch.nn.Linear(given.in_features, given.out_features, bias=False)
            )
        stored = weight.t().contiguous() if turned else weight
        plain.weight = torch.nn.Parameter(stored, requires_grad=False)
        plain.bias = given.bias
        model.set_submodule(name, plain)
