"""How positions turn queries and keys, in llama.cpp's words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError

if TYPE_CHECKING:
    import numpy as np

KNOWN = ("default", "linear", "yarn", "llama3", "longrope")


def describe_rope(config: Mapping[str, Any], head: int) -> dict[str, Any]:
    """List the fields of a model's rope.

    Args:
        head: how wide a head is.

    Raises:
        ExportError: if llama.cpp knows no such way to stretch positions.
    """
    main, local = _both(config)
    kind = main.get("rope_type", "default")
    if kind not in KNOWN:
        raise ExportError(
            f"llama.cpp has no rope of the kind {kind}",
            hint=f"it has {', '.join(KNOWN)}; use --format safetensors",
            where="config.json: rope_parameters",
        )
    fields: dict[str, Any] = {
        "rope.freq_base": float(main["rope_theta"]),
        "rope.dimension_count": int(head * main.get("partial_rotary_factor", 1.0)),
    }
    if local:
        fields["rope.freq_base_swa"] = float(local["rope_theta"])
    if kind in ("linear", "yarn"):
        fields |= {"rope.scaling.type": kind, "rope.scaling.factor": float(main["factor"])}
    if kind == "yarn":
        fields |= _describe_yarn(main, config)
    if kind == "longrope":
        fields |= _describe_long(main, config)
    return fields


def _both(config: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """Return how layers turn that see all, and those that see a window, if they differ."""
    given = config["rope_parameters"]
    return (given["full_attention"], given["sliding_attention"]) if _differ(given) else (given, {})


def _differ(given: Mapping[str, Any]) -> bool:
    return isinstance(given.get("sliding_attention"), Mapping)


def _describe_yarn(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Say how far positions are stretched; llama.cpp reads no other bounds than the usual ones."""
    betas = (rope.get("beta_fast") or 32, rope.get("beta_slow") or 1)
    strange = {"mscale", "mscale_all_dim"} & rope.keys() or rope.get("truncate") is False
    if betas != (32, 1) or strange:
        raise ExportError(
            "llama.cpp has only the usual yarn: with beta_fast 32 and beta_slow 1, without mscale",
            hint="use --format safetensors",
            where="config.json: rope_parameters",
        )
    original = rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
    fields: dict[str, Any] = {"rope.scaling.original_context_length": int(original)}
    if rope.get("attention_factor"):  # llama.cpp multiplies what it computes by this
        usual = 0.1 * math.log(rope["factor"]) + 1
        fields["rope.scaling.attn_factor"] = float(rope["attention_factor"] / usual)
    return fields


def _describe_long(rope: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    original = rope.get("original_max_position_embeddings") or config.get(
        "original_max_position_embeddings"
    )
    limit = config["max_position_embeddings"]
    original = original or limit
    factor = rope.get("factor") or limit / original
    attention = rope.get("attention_factor")
    if attention is None:
        attention = math.sqrt(1 + math.log(factor) / math.log(original)) if factor > 1 else 1.0
    return {
        "rope.scaling.original_context_length": int(original),
        "rope.scaling.attn_factor": float(attention),
    }


def rope_tensors(config: Mapping[str, Any], head: int) -> dict[str, np.ndarray[Any, Any]]:
    """Return what each frequency is divided by, where that is no single number."""
    import numpy as np

    main, _ = _both(config)
    kind = main.get("rope_type", "default")
    if kind == "longrope":
        named = {"long": main["long_factor"], "short": main["short_factor"]}
        return {f"rope_factors_{k}.weight": np.array(v, np.float32) for k, v in named.items()}
    if kind != "llama3":
        return {}
    turned = int(head * main.get("partial_rotary_factor", 1.0))
    base = main["rope_theta"] ** (np.arange(0, turned, 2, dtype=np.float64) / turned)
    waves = 2 * np.pi * base
    low, high, factor = main["low_freq_factor"], main["high_freq_factor"], main["factor"]
    original = main["original_max_position_embeddings"]
    share = np.clip((original / waves - low) / (high - low), 0, 1)  # of what stays as it is
    return {"rope_freqs.weight": (1 / ((1 - share) / factor + share)).astype(np.float32)}
