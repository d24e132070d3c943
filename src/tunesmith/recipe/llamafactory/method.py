"""The loss that a LLaMA-Factory file asks for."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.ppo import convert_ppo
from tunesmith.recipe.llamafactory.values import find_anywhere

SFT_LOSSES = ("dft", "eaft", "asft")
"""Losses of sft that have a flag of their own."""


def convert_method(theirs: TheirFile) -> dict[str, Any]:
    """Describe the method of a stage."""
    stage = theirs["stage"]
    if theirs["label_smoothing_factor"] and stage != "sft":
        raise theirs.refusal(
            "label_smoothing_factor", f"targets are not smoothed in stage: {stage}", "remove it"
        )
    if stage == "pt":
        return {"name": "pretrain", "pack": theirs["packing"] is not False}
    if stage == "ppo":
        return convert_ppo(theirs)
    if stage == "rm":
        return {"name": "reward"}
    if stage == "kto":
        return {
            "name": "kto",
            "beta": theirs["pref_beta"],
            "desirable_weight": theirs["kto_chosen_weight"],
            "undesirable_weight": theirs["kto_rejected_weight"],
        }
    return _pairs(theirs) if stage == "dpo" else _sft(theirs)


def _sft(theirs: TheirFile) -> dict[str, Any]:
    loss = sft_loss(theirs)
    strength = {
        "eaft": {"entropy_power": theirs["eaft_alpha"]},
        "asft": {"anchor_weight": theirs["asft_alpha"]},
    }
    return {
        "name": "sft",
        "loss": loss,
        **strength.get(loss, {}),
        "learn_prompts": theirs["train_on_prompt"],
        "learn_history": not theirs["mask_history"],
        "neftune_alpha": theirs["neftune_noise_alpha"] or 0.0,
        "label_smoothing": theirs["label_smoothing_factor"],
    }


def sft_loss(theirs: TheirFile) -> str:
    """Name the loss that is switched on."""
    flags = {name: theirs[f"use_{name}_loss"] for name in SFT_LOSSES}
    return next((name for name, on in flags.items() if on), "nll")


def _pairs(theirs: TheirFile) -> dict[str, Any]:
    loss, beta = theirs["pref_loss"], theirs["pref_beta"]
    if loss == "orpo":
        return {"name": "orpo", "beta": beta}
    if loss == "simpo":
        return {"name": "simpo", "beta": beta, "gamma": theirs["simpo_gamma"]}
    method = {
        "name": "dpo",
        "beta": beta,
        "loss": loss,
        "label_smoothing": theirs["dpo_label_smoothing"],
        "sft_weight": theirs["pref_ftx"],
    }
    if theirs.has("ref_model"):
        method["reference"] = find_anywhere(theirs["ref_model"])
    return method
