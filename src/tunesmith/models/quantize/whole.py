"""Turn quantized layers back into plain ones."""

from __future__ import annotations

from typing import Any

import torch

READS_PACKED = "transformers.integrations.bitsandbytes"
"""Whose conversions know no way back."""


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
    read: Any = model
    if "hf_quantizer" in vars(read):
        _forget_quantizer(read)


def _forget_quantizer(model: Any) -> None:
    """Leave nothing that calls a model quantized, or would write it as one."""
    from transformers.core_model_loading import WeightConverter

    model.hf_quantizer.remove_quantization_config(model)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = False
    model._weight_conversions = [
        conversion
        for conversion in model._weight_conversions
        if not isinstance(conversion, WeightConverter)
        or all(type(each).__module__ != READS_PACKED for each in conversion.operations)
    ]
