"""Weights as GPTQ's tools store them (Frantar et al. 2022, arXiv:2210.17323).

`qweight` [in * bits / 32, out] holds numbers down the columns, `qzeros` [groups, out * bits / 32]
along the rows, less one in the older of two layouts; `scales` is [groups, out], and `g_idx` [in]
says to which group a row belongs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from tunesmith.models.quantize.grouped import Grouped, Groups
from tunesmith.models.quantize.packed.words import WORD, pack_words, unpack_words

LAYOUTS = {"gptq": 1, "gptq_v2": 0}
"""What is added to stored zeros."""
BITS = (2, 3, 4, 8)


def refuse(options: Mapping[str, Any]) -> str:
    """Say why these weights cannot be read."""
    layout = _layout(options)
    if layout not in LAYOUTS:
        return f"in the layout {layout}, which tunesmith cannot read"
    return ""


def _layout(options: Mapping[str, Any]) -> str:
    return str(options.get("checkpoint_format") or options.get("format") or "gptq")


def unpack(
    layer: Grouped, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> Grouped:
    """Fill a layer."""
    words, scales = tensors["qweight"], tensors["scales"]
    bits, rest = divmod(len(words) * WORD, layer.in_features)
    if rest or bits not in BITS:
        raise ValueError(f"{len(words)} words hold no {layer.in_features} numbers")
    codes = unpack_words(words, bits).t().contiguous()
    zeros = unpack_words(tensors["qzeros"].t().contiguous(), bits)
    zeros = zeros + LAYOUTS[_layout(options)] & 2**bits - 1
    group_of = tensors.get("g_idx")
    if group_of is None and options.get("desc_act") and len(scales) > 1:
        raise ValueError("desc_act mixes the columns of groups, and no g_idx says how")
    fill(layer, codes, bits, scales.t(), zeros, group_of)
    return layer


def pack(groups: Groups) -> dict[str, torch.Tensor]:
    """Store a weight whose groups lie in rows, in the older layout, which all readers know."""
    out, width = groups.codes.shape
    scale, zero = (part.view(out, -1) for part in (groups.scale, groups.zero))
    stored = zero.long() - LAYOUTS["gptq"] & 2**groups.bits - 1
    return {
        "qweight": pack_words(groups.codes.t(), groups.bits),
        "qzeros": pack_words(stored, groups.bits).t().contiguous(),
        "scales": scale.half().t().contiguous(),
        "g_idx": torch.arange(width, dtype=torch.int32) // groups.size,
    }


def fill(
    layer: Grouped,
    codes: torch.Tensor,
    bits: int,
    scale: torch.Tensor,
    zero: torch.Tensor,
    group_of: torch.Tensor | None,
) -> None:
    """Give a layer numbers whose groups lie in rows.

    Args:
        codes: [out, in].
        scale: [out, groups].
        zero: the same.
    """
    shape = (layer.out_features, layer.in_features)
    groups = scale.shape[1]
    size = -(-shape[1] // groups)
    columns = torch.arange(shape[1], device=codes.device)
    of = columns // size if group_of is None else group_of.long()
    if codes.shape != shape or scale.shape != zero.shape or len(scale) != shape[0]:
        raise ValueError(f"found {list(codes.shape)}, with scales of {list(scale.shape)}")
    if len(of) != shape[1] or int(of.min()) < 0 or int(of.max()) >= groups:
        raise ValueError("columns belong to groups that are not there")
    in_order = shape[1] % groups == 0 and bool((of == columns // size).all())
    scale, zero = scale.contiguous(), zero.contiguous()
    if in_order:
        layer.take(Groups(codes, bits, scale.flatten(), zero.flatten(), size))
    else:
        layer.take(Groups(codes, bits, scale, zero, size, of))
    layer.settle()
