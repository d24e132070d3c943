"""The weights that a LLaMA-Factory file trains, and in which numbers."""

from __future__ import annotations

import math
from typing import Any

from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.values import split

BOTH_ENDS = {"embed_tokens", "lm_head"}


def convert_tuning(theirs: TheirFile) -> dict[str, Any]:
    """Describe which weights move."""
    kind = theirs["finetuning_type"]
    if kind == "full":
        return {"kind": "full"}
    return _freeze(theirs) if kind == "freeze" else _lora(theirs)


def _freeze(theirs: TheirFile) -> dict[str, Any]:
    extra = set(split(theirs["freeze_extra_modules"] or ""))
    if extra and extra != BOTH_ENDS:
        raise theirs.refusal(
            "freeze_extra_modules",
            "of the rest, embeddings and head are trained together or not at all",
            f"write freeze_extra_modules: {','.join(sorted(BOTH_ENDS))}, or remove it",
        )
    layers = theirs["freeze_trainable_layers"]
    return {"kind": "freeze", "layers": layers, "embeddings": bool(extra)}


def _lora(theirs: TheirFile) -> dict[str, Any]:
    targets = split(theirs["lora_target"])
    drops = theirs["stage"] not in ("dpo", "kto")
    return {
        "kind": "lora",
        "rank": theirs["lora_rank"],
        "alpha": _alpha(theirs),
        "dropout": theirs["lora_dropout"] if drops else 0.0,
        "lora_plus_ratio": theirs["loraplus_lr_ratio"] or 1.0,
        "targets": ["all-linear"] if targets == ["all"] else targets,
    }


def _alpha(theirs: TheirFile) -> int | None:
    """Return alpha so that alpha / rank is their scale (rank-stabilized: arXiv:2312.03732)."""
    alpha, rank = theirs["lora_alpha"], theirs["lora_rank"]
    if not theirs["use_rslora"]:
        return alpha or None
    root = math.isqrt(rank)
    if root * root != rank:
        raise theirs.refusal(
            "use_rslora",
            f"alpha is a whole number, and with rank {rank} the scale would need another",
            "write lora_rank: 4, 16 or 64, or remove it and raise lora_alpha",
        )
    return int(alpha or 2 * rank) * root


def convert_quantize(theirs: TheirFile) -> dict[str, Any]:
    """Describe in how many bits the base is kept."""
    if theirs["quantization_method"] != "bnb":
        raise theirs.refusal(
            "quantization_method",
            f"{theirs['quantization_method']} is not there yet",
            "write quantization_method: bnb",
        )
    bits = theirs["quantization_bit"]
    if bits == 8:
        return {"kind": "int8"}
    if bits != 4:
        raise theirs.refusal(
            "quantization_bit", f"a base of {bits} bits is not there yet", "write 4 or 8"
        )
    return {"kind": theirs["quantization_type"], "double": theirs["double_quantization"]}


def convert_compute(theirs: TheirFile) -> dict[str, Any]:
    """Describe device and numbers."""
    compute: dict[str, Any] = {"precision": _precision(theirs)}
    if theirs["use_cpu"]:
        compute["device"] = "cpu"
    if theirs["disable_gradient_checkpointing"]:
        compute["gradient_checkpointing"] = "off"
    elif theirs["gradient_checkpointing"]:
        compute["gradient_checkpointing"] = "on"
    return compute


def _precision(theirs: TheirFile) -> str:
    if theirs["pure_bf16"]:
        return "pure_bf16"
    if theirs["bf16"]:
        return "bf16"
    return "auto" if theirs["fp16"] else "fp32"
