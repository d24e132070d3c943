"""How a LLaMA-Factory file learns by rewards: stage ppo."""

from __future__ import annotations

from typing import Any

from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.values import find_anywhere

PULL = 0.2
"""Its first strength there, from which it adapts to `ppo_target`."""
OF_ANSWERS = ("max_new_tokens", "temperature")
"""Keys of chat that stage ppo acts by too."""


def convert_ppo(theirs: TheirFile) -> dict[str, Any]:
    """Describe rewards, how answers are written and how they are learned from."""
    return {
        "name": "ppo",
        "rewards": [_reward(theirs)],
        "answer_tokens": theirs["max_new_tokens"],
        "temperature": theirs["temperature"],
        "beta": PULL,
        "kl_target": theirs["ppo_target"],
        "iterations": theirs["ppo_epochs"],
        "minibatches": theirs["ppo_buffer_size"],
        "scale_rewards": theirs["ppo_score_norm"],
        "whiten_rewards": theirs["ppo_whiten_rewards"],
    }


def _reward(theirs: TheirFile) -> dict[str, Any]:
    named = theirs["reward_model"]
    if theirs["reward_model_type"] == "api":
        return {"url": named}
    return {"model": find_anywhere(named)}


def updates_of_a_step(theirs: TheirFile) -> int:
    """Count the updates of what is called a step there: all that learn from the same answers."""
    if theirs["stage"] != "ppo":
        return 1
    return int(theirs["ppo_epochs"] * theirs["ppo_buffer_size"])


def check_ppo(theirs: TheirFile) -> None:
    """Refuse what stage ppo cannot do, there or here.

    Raises:
        RecipeError: naming the key and its line.
    """
    if theirs["stage"] != "ppo":
        return
    if not theirs.has("reward_model"):
        raise theirs.refusal(
            "reward_model",
            "reward_model is missing",
            "write reward_model: the folder that stage: rm trained, or an address with "
            "reward_model_type: api",
        )
    if theirs["reward_model_type"] == "lora" and theirs["finetuning_type"] != "lora":
        raise theirs.refusal(
            "reward_model_type",
            "reward_model_type: lora is for finetuning_type: lora",
            "write reward_model_type: full",
        )
    wrong = {
        "do_sample": (not theirs["do_sample"], "answers that are not drawn teach nothing"),
        "temperature": (not theirs["temperature"], "answers that are not drawn teach nothing"),
        "max_new_tokens": (not theirs["max_new_tokens"], "answers need tokens"),
        "ref_model": (theirs.has("ref_model"), "ppo compares with the model before training"),
        "num_beams": (theirs["num_beams"] != 1, "answers are drawn, not searched for"),
        "repetition_penalty": (
            theirs["repetition_penalty"] != 1,
            "what is learned is drawn as it is likely",
        ),
    }
    for name, (asked, why) in wrong.items():
        if asked:
            raise theirs.refusal(name, f"{name}: {why}", "remove it")


def note_ppo(theirs: TheirFile) -> dict[str, str]:
    """Say what becomes of keys of chat in stage ppo, by key."""
    if theirs["stage"] != "ppo":
        return {}
    every = "answers are drawn from all tokens, as they are learned from"
    said = {"top_p": every, "top_k": every, "max_length": "max_new_tokens is what counts"}
    said["skip_special_tokens"] = "rewards are given the answer with and without them"
    said["length_penalty"] = "it is for beams"
    return {name: text for name, text in said.items() if theirs.has(name)}
