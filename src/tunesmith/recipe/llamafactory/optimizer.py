"""How a LLaMA-Factory file moves the weights."""

from __future__ import annotations

import math
from typing import Any

from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.ppo import updates_of_a_step

NAMES = {
    "adamw_torch": "adamw",
    "adamw_torch_fused": "adamw",
    "adamw_hf": "adamw",
    "paged_adamw": "adamw",
    "paged_adamw_32bit": "adamw",
    "adamw_bnb_8bit": "adamw_8bit",
    "adamw_8bit": "adamw_8bit",
    "paged_adamw_8bit": "adamw_paged_8bit",
    "lion_32bit": "lion",
    "paged_lion_32bit": "lion",
    "lion_8bit": "lion_8bit",
    "paged_lion_8bit": "lion_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
    "schedule_free_adamw": "schedule_free",
}
WITHOUT_BETAS = ("adafactor", "sgd")
WITHOUT_EPS = (*WITHOUT_BETAS, "lion", "lion_8bit")
BENT = {
    "cosine_with_restarts": ("num_cycles",),
    "polynomial": ("lr_end", "power"),
    "cosine_with_min_lr": ("min_lr", "min_lr_rate"),
    "warmup_stable_decay": ("num_decay_steps", "min_lr_ratio"),
}
SCHEDULES = ("cosine", "linear", "constant", "constant_with_warmup", "inverse_sqrt", *BENT)


def convert_optimizer(theirs: TheirFile, processes: int) -> dict[str, Any]:
    """Describe the optimizer, its schedule, and what an update holds.

    Args:
        processes: that would share an update there.
    """
    optimizer: dict[str, Any] = {
        **_name(theirs),
        "learning_rate": theirs["learning_rate"],
        "weight_decay": theirs["weight_decay"],
        "max_grad_norm": theirs["max_grad_norm"],
        "warmup": _warmup(theirs),
        "early_stopping": _patience(theirs),
    }
    alone = bool(optimizer.get("layerwise"))
    if alone:
        optimizer["max_grad_norm"] = 0.0
    optimizer |= _size(theirs, 1 if alone else processes)
    if optimizer["name"] not in WITHOUT_BETAS:
        optimizer |= {"beta1": theirs["adam_beta1"], "beta2": theirs["adam_beta2"]}
    if optimizer["name"] not in WITHOUT_EPS:
        optimizer["eps"] = theirs["adam_epsilon"]
    if optimizer["name"] != "schedule_free":
        return optimizer | _schedule(theirs)
    if not theirs["lr_scheduler_type"].startswith("constant"):
        raise theirs.refusal(
            "lr_scheduler_type",
            "schedule_free_adamw needs no schedule, and another one beside it is not there",
            "write lr_scheduler_type: constant_with_warmup",
        )
    return optimizer


def _name(theirs: TheirFile) -> dict[str, Any]:
    """Name the optimizer, with the options that only it has."""
    if theirs["use_galore"]:
        return {"name": "galore", **_low_rank(theirs, "galore"), "scale": theirs["galore_scale"]}
    if theirs["use_apollo"]:
        return _apollo(theirs)
    if theirs["use_badam"]:
        return {"name": "badam", "switch_every_steps": theirs["badam_switch_interval"]}
    if theirs["use_adam_mini"]:
        return {"name": "adam_mini"}
    if theirs["use_muon"]:
        return {"name": "muon"}
    if theirs["optim"] not in NAMES:
        raise theirs.refusal(
            "optim",
            f"the optimizer {theirs['optim']} is not there",
            f"write one of {', '.join(NAMES)}",
        )
    return {"name": NAMES[theirs["optim"]]}


def _low_rank(theirs: TheirFile, prefix: str) -> dict[str, Any]:
    if NAMES.get(theirs["optim"]) != "adamw":
        raise theirs.refusal(
            "optim", f"use_{prefix} is an optimizer itself", "write optim: adamw_torch"
        )
    layerwise = theirs[f"{prefix}_layerwise"]
    if layerwise and theirs["gradient_accumulation_steps"] != 1:
        raise theirs.refusal(
            f"{prefix}_layerwise",
            "gradients that are used at once cannot be added up over micro-steps",
            "write gradient_accumulation_steps: 1, and raise per_device_train_batch_size",
        )
    return {
        "rank": theirs[f"{prefix}_rank"],
        "project_every_steps": theirs[f"{prefix}_update_interval"],
        "layerwise": layerwise,
    }


def _apollo(theirs: TheirFile) -> dict[str, Any]:
    """Describe APOLLO; its scale there is the square of the factor of a step."""
    options = _low_rank(theirs, "apollo") | {"scale": math.sqrt(theirs["apollo_scale"])}
    if theirs["apollo_scale_type"] == "channel":
        return {"name": "apollo", **options}
    if options.pop("rank") != 1:
        raise theirs.refusal(
            "apollo_scale_type",
            "one length for each matrix goes with one direction only",
            "write apollo_rank: 1, or apollo_scale_type: channel",
        )
    return {"name": "apollo_mini", **options}


def _patience(theirs: TheirFile) -> int:
    """Return after how many evaluations a run stops; a great many only take the best weights."""
    if theirs["early_stopping_steps"]:
        return int(theirs["early_stopping_steps"])
    return 10**9 if theirs["load_best_model_at_end"] else 0


def _size(theirs: TheirFile, processes: int) -> dict[str, Any]:
    """Say what an update holds; packed rows have as many tokens as fit."""
    rows = theirs["per_device_train_batch_size"] * processes
    accumulation = theirs["gradient_accumulation_steps"]
    if theirs["stage"] == "sft" and (theirs["packing"] or theirs["neat_packing"]):
        return {"update_tokens": rows * accumulation * theirs["cutoff_len"]}
    if theirs["stage"] == "ppo":  # all of these are answered before any is learned from
        accumulation *= theirs["ppo_buffer_size"]
    return {"batch_size": rows, "accumulation": accumulation}


def _warmup(theirs: TheirFile) -> float:
    """Return steps or a share; steps win over a ratio, and constant never warms up."""
    if theirs["lr_scheduler_type"] == "constant":
        return 0.0
    if steps := theirs["warmup_steps"]:  # below 1 it is a share
        return float(steps if steps < 1 else steps * updates_of_a_step(theirs))
    ratio = theirs["warmup_ratio"] or 0.0
    if not 0 <= ratio < 1:
        raise theirs.refusal(
            "warmup_ratio", f"warmup_ratio cannot be {ratio:g}", "write a share below 1: 0.1"
        )
    return float(ratio)


def _schedule(theirs: TheirFile) -> dict[str, Any]:
    name = theirs["lr_scheduler_type"]
    if name not in SCHEDULES:
        raise theirs.refusal(
            "lr_scheduler_type",
            f"the schedule {name} is not there",
            f"write one of {', '.join(SCHEDULES)}",
        )
    given = theirs["lr_scheduler_kwargs"] or {}
    wrong = [key for key in given if key not in BENT.get(name, ())] if given else []
    if wrong or not isinstance(given, dict):
        raise theirs.refusal(
            "lr_scheduler_kwargs",
            f"{name} does not take {wrong[0] if wrong else given}",
            f"it takes {', '.join(BENT.get(name, ())) or 'none'}",
        )
    if name == "constant_with_warmup":
        name = "constant"
    return {"scheduler": name, **_bend(theirs, name, given)}


def _bend(theirs: TheirFile, name: str, given: dict[str, Any]) -> dict[str, Any]:
    if name == "cosine_with_restarts":
        return {"cycles": given.get("num_cycles", 1)}
    if name == "polynomial":
        end = given.get("lr_end", 1e-7)
        return {"power": given.get("power", 1.0), "min_rate": end / theirs["learning_rate"]}
    if name == "cosine_with_min_lr":
        end = given.get("min_lr", 0.0) / theirs["learning_rate"]
        return {"min_rate": given.get("min_lr_rate", end)}
    if name == "warmup_stable_decay":
        return {"decay": _decay(theirs, given), "min_rate": given.get("min_lr_ratio", 0.0)}
    return {}


def _decay(theirs: TheirFile, given: dict[str, Any]) -> float:
    """Return the share of all steps that fall; two thirds of those after warm-up by default."""
    warmup, steps = _warmup(theirs), theirs["max_steps"] * updates_of_a_step(theirs)
    counted = "num_decay_steps" in given or warmup >= 1
    if not counted:
        return (1 - warmup) * 2 / 3
    if steps <= 0:
        raise theirs.refusal(
            "lr_scheduler_type",
            "steps of warmup_stable_decay are a share of all steps here, which are not known",
            "write max_steps, or warmup_ratio and no num_decay_steps",
        )
    left = 1 - (warmup / steps if warmup >= 1 else warmup)
    share = given["num_decay_steps"] / steps if "num_decay_steps" in given else left * 2 / 3
    return float(share)
