"""What a folder of quantized weights holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.models.quantize.packed import bnb
from tunesmith.recipe.quantize import Quantize

Options = Mapping[str, Any]
ORIGINAL = "take the original model, in fp32, bf16 or fp16, and write model.quantize for few bits"


@dataclass(frozen=True)
class Packed:
    """What a folder of quantized weights holds.

    Attributes:
        method: such as gptq; of bitsandbytes the kind of quantization, such as nf4.
        layers: shapes and types of the tensors of each quantized layer, by their names.
        num_bytes: of all of them.
    """

    folder: Path
    method: str
    options: Options
    layers: Mapping[str, Mapping[str, tuple[tuple[int, ...], str]]]
    num_bytes: int

    @property
    def made_by(self) -> Quantize | None:
        """What would quantize the original so; None if we make no such layers."""
        return bnb.quantize_of(self.options) if self.method in bnb.KINDS else None
