"""The weights that a LLaMA-Factory file trains, and in which numbers."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.values import find_anywhere, split

BOTH_ENDS = {"embed_tokens", "lm_head"}


def convert_tuning(theirs: TheirFile) -> dict[str, Any]:
    """Describe which weights move."""
    kind = theirs["finetuning_type"]
    convert = {"full": _full, "freeze": _freeze, "lora": _lora, "oft": _oft}[kind]
    return {**convert(theirs), **_parts(theirs)}


def _full(theirs: TheirFile) -> dict[str, Any]:
    return {"kind": "full"}


def _parts(theirs: TheirFile) -> dict[str, Any]:
    """Describe which parts of a model that sees learn, where they are not the usual ones."""
    frozen = {
        "language": "freeze_language_model",
        "projector": "freeze_multi_modal_projector",
        "tower": "freeze_vision_tower",
    }
    parts = [part for part, key in frozen.items() if not theirs[key]]
    if not parts:
        raise theirs.refusal(
            "freeze_language_model", "all parts of the model are frozen", "set one to false"
        )
    return {} if parts == ["language"] else {"parts": parts}


def _freeze(theirs: TheirFile) -> dict[str, Any]:
    extra = set(split(theirs["freeze_extra_modules"] or ""))
    if extra and extra != BOTH_ENDS:
        raise theirs.refusal(
            "freeze_extra_modules",
            "of the rest, embeddings and head are trained together or not at all",
            f"write freeze_extra_modules: {','.join(sorted(BOTH_ENDS))}, or remove it",
        )
    layers, pro = theirs["freeze_trainable_layers"], theirs["use_llama_pro"]
    return {"kind": "freeze", "layers": layers, "embeddings": bool(extra), "spread": pro}


def _lora(theirs: TheirFile) -> dict[str, Any]:
    drops = theirs["stage"] not in ("dpo", "kto", "ppo")
    pissa = "pissa" if theirs["pissa_iter"] == -1 else "pissa_niter"
    return {
        "kind": "lora",
        "rank": theirs["lora_rank"],
        "alpha": theirs["lora_alpha"] or None,
        "rslora": theirs["use_rslora"],
        "dora": theirs["use_dora"],
        "init": pissa if theirs["pissa_init"] else "default",
        "dropout": theirs["lora_dropout"] if drops else 0.0,
        "lora_plus_ratio": theirs["loraplus_lr_ratio"] or 1.0,
        **_beside(theirs, theirs["lora_target"]),
    }


def _oft(theirs: TheirFile) -> dict[str, Any]:
    for key in ("oft_rank", "module_dropout"):
        if theirs[key]:
            raise theirs.refusal(
                key, f"rotations here have no {key}", "write oft_block_size, and remove it"
            )
    return {
        "kind": "oft",
        "block_size": theirs["oft_block_size"],
        **_beside(theirs, theirs["oft_target"]),
    }


def _beside(theirs: TheirFile, target: str) -> dict[str, Any]:
    """Describe what all adapters share."""
    targets, adapters = split(target), read_adapters(theirs)
    goes_on = adapters and not theirs["create_new_adapter"]
    return {
        "targets": ["all-linear"] if targets == ["all"] else targets,
        "modules": split(theirs["additional_target"] or ""),
        "from_adapter": adapters[-1] if goes_on else None,
    }


def adapters_beneath(theirs: TheirFile) -> list[str]:
    """List the adapters that are added to the base before one is trained."""
    adapters = read_adapters(theirs)
    return adapters if theirs["create_new_adapter"] else adapters[:-1]


def read_adapters(theirs: TheirFile) -> list[str]:
    """List the adapters a file names."""
    return [find_anywhere(name) for name in split(theirs["adapter_name_or_path"] or "")]


def convert_quantize(theirs: TheirFile) -> dict[str, Any]:
    """Describe in how many bits the base is kept."""
    method, bits = theirs["quantization_method"], theirs["quantization_bit"]
    method = "bnb" if method == "bitsandbytes" else method  # as it was called
    if method == "hqq" and bits in (1, 2, 3, 4, 8):
        return {"kind": "hqq", "bits": bits}
    if method in WHY_NOT:
        raise theirs.refusal("quantization_method", *WHY_NOT[method])
    if method not in ("bnb", "hqq"):
        raise theirs.refusal(
            "quantization_method", f"there is no method {method}", "write bnb or hqq"
        )
    if method == "bnb" and bits == 8:
        return {"kind": "int8"}
    if method == "hqq" or bits != 4:
        raise theirs.refusal(
            "quantization_bit",
            f"a base of {bits} bits is not there with {method}",
            "write 4 or 8" if method == "bnb" else "write 1, 2, 3, 4 or 8",
        )
    return {"kind": theirs["quantization_type"], "double": theirs["double_quantization"]}


WHY_NOT = {
    "eetq": (
        "EETQ is compiled code that is fetched from the internet, and runs on GPUs alone",
        "write quantization_method: bnb with quantization_bit: 8, as close and for CPUs too",
    ),
    **{
        name: (
            f"{name} is no way to quantize a base while it is read",
            "remove it, and name a folder that was quantized so in model_name_or_path",
        )
        for name in ("gptq", "awq", "aqlm")
    },
}


def convert_rope(theirs: TheirFile, around: Around) -> dict[str, Any] | None:
    """Describe how positions are stretched: as much as rows need, there too."""
    return None if fits(theirs, around) else {"kind": theirs["rope_scaling"]}


def fits(theirs: TheirFile, around: Around) -> bool:
    """Whether rows are as short as the model takes anyway, so that nothing is stretched."""
    if theirs["rope_scaling"] is None:
        return True
    taken = around.positions(theirs["model_name_or_path"])
    return taken is not None and theirs["cutoff_len"] <= taken


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
    return "fp16" if theirs["fp16"] else "fp32"
