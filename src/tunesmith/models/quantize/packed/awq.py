"""Weights as AWQ's tools store them (Lin et al. 2023, arXiv:2306.00978), in the layout `gemm`.

`qweight` [in, out / 8] and `qzeros` [groups, out / 8] hold eight numbers of 4 bits a word, even
ones before odd ones; `scales` is [groups, out].
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.models.quantize.grouped import Grouped
from tunesmith.models.quantize.packed.gptq import fill
from tunesmith.models.quantize.packed.words import unpack_words

if TYPE_CHECKING:
    import torch

BITS = 4
PLACES = (0, 4, 1, 5, 2, 6, 3, 7)
"""Where in a word each of eight numbers lies."""


def refuse(options: Mapping[str, Any]) -> str:
    """Say why these weights cannot be read."""
    layout = str(options.get("version") or options.get("format") or "gemm").lower()
    if layout != "gemm":
        return f"in the layout {layout}, which tunesmith cannot read"
    bits = options.get("bits", options.get("w_bit", BITS))
    return "" if bits == BITS else f"in {bits} bits, which tunesmith cannot read"


def unpack(
    layer: Grouped, tensors: Mapping[str, torch.Tensor], options: Mapping[str, Any]
) -> Grouped:
    """Fill a layer."""
    codes = _in_order(tensors["qweight"])
    zeros = _in_order(tensors["qzeros"])
    fill(layer, codes.contiguous(), BITS, tensors["scales"].t(), zeros, None)
    return layer


def _in_order(words: torch.Tensor) -> torch.Tensor:
    """Take numbers apart; [rows, words] to [words * 8, rows]."""
    mixed = unpack_words(words.t().contiguous(), BITS).view(-1, len(PLACES), len(words))
    return mixed[:, list(PLACES)].reshape(-1, len(words))
