"""Whole numbers as torchao chooses them, kept by us in no more bits than they need."""

from __future__ import annotations

from typing import Any

import torch
from torchao.quantization import IntxWeightOnlyConfig, quantize_
from torchao.quantization.granularity import PerAxis, PerGroup

from tunesmith.models.quantize.grouped import Groups
from tunesmith.models.quantize.storage import GROUP
from tunesmith.recipe.quantize import TorchAO


def quantize(weight: torch.Tensor, options: TorchAO) -> Groups:
    """Choose whole numbers and scales for a weight [out, in]."""
    out, width = weight.shape
    by_group = options.bits < 8 and width % GROUP == 0
    layer = torch.nn.Linear(width, out, bias=False, device="meta")
    layer.weight = torch.nn.Parameter(weight.float(), requires_grad=False)
    kind = IntxWeightOnlyConfig(
        weight_dtype=vars(torch)[f"int{options.bits}"],  # its stubs know no int4
        granularity=PerGroup(GROUP) if by_group else PerAxis(0),
    )
    quantize_(layer, kind)
    made: Any = layer.weight
    half = 2 ** (options.bits - 1)
    return Groups(
        codes=(made.qdata.short() + half).to(torch.uint8),
        bits=options.bits,
        scale=made.scale.flatten().float(),
        zero=(made.zero_point.flatten().short() + half).to(torch.uint8),
        size=GROUP if by_group else width,
    )
