"""Weights as transformers stores those that bitsandbytes quantized (arXiv:2305.14314, 2208.07339).

Of 4 bits, `weight` [out * in / 2, 1] holds two numbers a byte, and `weight.absmax` a scale for each
block of 64; these scales may be quantized too. Of 8 bits, `weight` is [out, in] and `SCB` [out].
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from tunesmith.recipe.quantize import FP4, NF4, Int8

METHOD = "bitsandbytes"
KINDS = ("nf4", "fp4", "int8")


def quantize_of(options: Mapping[str, Any]) -> NF4 | FP4 | Int8:
    """Say what would quantize the original so."""
    if options.get("load_in_8bit") or options.get("_load_in_8bit"):
        return Int8()
    kind = NF4 if options.get("bnb_4bit_quant_type") == "nf4" else FP4
    return kind(double=bool(options.get("bnb_4bit_use_double_quant")))


def needed(kind: str) -> tuple[str, ...]:
    """Name the tensors without which 4 bits mean nothing."""
    return ("weight", "weight.quant_map", f"weight.quant_state.bitsandbytes__{kind}")


def refuse(options: Mapping[str, Any]) -> str:
    """Say why these weights cannot be read."""
    stored = str(options.get("bnb_4bit_quant_storage", "uint8"))
    if stored.removeprefix("torch.") != "uint8":
        return f"in numbers of {stored}, which tunesmith cannot read"
    if options.get("llm_int8_has_fp16_weight"):
        return "with whole weights beside, which tunesmith cannot read"
    return ""


def describe(config: Any, options: Mapping[str, Any]) -> Any:
    """Let a configuration say again what its folder says of quantization."""
    config.quantization_config = dict(options)
    return config


def plain(options: Mapping[str, Any]) -> dict[str, Any]:
    """Spell options as files do."""
    return {
        name: str(value.value) if isinstance(value, Enum) else value
        for name, value in options.items()
    }
