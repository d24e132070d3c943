"""What `--quantize` takes where safetensors are written, and how far it may move a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tunesmith.errors import ExportError, require
from tunesmith.export.parity import Limits
from tunesmith.models.quantize.gptq import Bits


@dataclass(frozen=True)
class Kind:
    """A way to pack the linear layers between embeddings and head.

    Attributes:
        bytes_per_weight: about how much room a weight takes, scales included.
        limits: how far from the tuned model it may be.
        nearer: the kind that stays nearer, at the cost of room; itself if there is none.
    """

    method: Literal["gptq", "nf4", "int8"]
    bits: Bits
    bytes_per_weight: float
    limits: Limits
    nearer: str


KINDS: dict[str, Kind] = {
    "gptq-8": Kind("gptq", 8, 1.04, Limits(0.02, 0.95), "gptq-8"),
    "gptq-4": Kind("gptq", 4, 0.54, Limits(0.1, 0.85), "gptq-8"),
    "gptq-3": Kind("gptq", 3, 0.41, Limits(0.3, 0.75), "gptq-4"),
    "gptq-2": Kind("gptq", 2, 0.29, Limits(1.0, 0.5), "gptq-3"),
    "int8": Kind("int8", 8, 1.02, Limits(0.02, 0.95), "int8"),
    "nf4": Kind("nf4", 4, 0.53, Limits(0.1, 0.85), "int8"),
}


def find_kind(name: str) -> Kind:
    """Find a kind by its name.

    Raises:
        ExportError: if safetensors hold none of that name.
        MissingPackage: if bitsandbytes makes it and is not installed.
    """
    if name not in KINDS:
        whole = "write --precision fp32, bf16 or fp16 for whole weights, or --quantize with"
        raise ExportError(
            f"there are no safetensors in {name}",
            hint=f"{whole} one of {', '.join(KINDS)}; or choose --format gguf",
            where="--quantize",
        )
    kind = KINDS[name]
    if kind.method != "gptq":
        require("bitsandbytes", extra="quant")
    return kind
