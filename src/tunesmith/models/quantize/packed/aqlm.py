"""Weights as AQLM stores them (Egiazarian et al. 2024, arXiv:2401.06118): sums of code vectors.

`codes` [out groups, in groups, codebooks] choose from `codebooks` [codebooks, entries, out group,
in group]; `scales` [out groups, 1, 1, 1] stretch the sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunesmith.models.quantize.grouped import Unfilled


def refuse(options: Mapping[str, Any]) -> str:
    """Say why these weights cannot be read."""
    return ""


class Additive(Unfilled):
    """A linear layer of sums of code vectors."""

    codebooks: torch.Tensor
    scales: torch.Tensor

    def whole(self, dtype: torch.dtype) -> torch.Tensor:
        """Put the weight together, in fp32 whatever comes out; [out, in]."""
        books, entries, tall, wide = self.codebooks.shape
        outs, ins, _ = self.weight.shape
        vectors = self.codebooks.float().view(books * entries, tall * wide)
        places = self.weight.long() % entries
        places += torch.arange(books, device=places.device) * entries
        sums = torch.nn.functional.embedding_bag(places.view(-1, books), vectors, mode="sum")
        blocks = sums.view(outs, ins, tall, wide) * self.scales.float()
        return blocks.transpose(1, 2).reshape(outs * tall, ins * wide).to(dtype)


def unpack(
    layer: Unfilled, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> Additive:
    """Fill a layer."""
    codes, codebooks, scales = (tensors[name] for name in ("codes", "codebooks", "scales"))
    if codes.dim() != 3 or codebooks.dim() != 4 or codes.shape[2] != len(codebooks):
        raise ValueError(f"codes of {list(codes.shape)}, codebooks of {list(codebooks.shape)}")
    found = (codes.shape[0] * codebooks.shape[2], codes.shape[1] * codebooks.shape[3])
    if found != (layer.out_features, layer.in_features):
        raise ValueError(f"found {list(found)}")
    if scales.numel() != codes.shape[0]:
        raise ValueError(f"{scales.numel()} scales for {codes.shape[0]} groups")
    filled = Additive(
        layer.in_features, layer.out_features, bias=False, source_cls=layer.source_cls
    )
    filled.weight = torch.nn.Parameter(codes, requires_grad=False)
    filled.register_buffer("codebooks", codebooks, persistent=False)
    filled.register_buffer("scales", scales, persistent=False)
    return filled
