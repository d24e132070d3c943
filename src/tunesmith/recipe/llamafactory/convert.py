"""A LLaMA-Factory file to a recipe of ours, and what is lost on the way."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from tunesmith.errors import RecipeError
from tunesmith.recipe.llamafactory.around import Around
from tunesmith.recipe.llamafactory.data import convert_data
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.idle import find_idle
from tunesmith.recipe.llamafactory.keys import list_keys
from tunesmith.recipe.llamafactory.method import convert_method
from tunesmith.recipe.llamafactory.optimizer import convert_optimizer
from tunesmith.recipe.llamafactory.ppo import OF_ANSWERS, note_ppo
from tunesmith.recipe.llamafactory.rules import check_keys, check_together, check_trains, is_off
from tunesmith.recipe.llamafactory.run import convert_evaluate, convert_run, output_folder
from tunesmith.recipe.llamafactory.templates import Choice, choose_template
from tunesmith.recipe.llamafactory.tuning import (
    adapters_beneath,
    convert_compute,
    convert_quantize,
    convert_rope,
    convert_tuning,
    fits,
)
from tunesmith.recipe.load import build_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules import check_rules

TRAINING = ("model", "data", "method", "train", "megatron", "evaluate")
OF_SENSES = (
    "freeze_vision_tower",
    "freeze_multi_modal_projector",
    "freeze_language_model",
    "media_dir",
    "image_max_pixels",
    "video_max_pixels",
    "video_fps",
    "video_maxlen",
)
"""Keys that mean something to models that see or hear alone."""
OF_OTHERS = ("chat", "export", "the name of chat")


@dataclass(frozen=True)
class Converted:
    """A recipe, and what a person should know of it.

    Attributes:
        notes: why a key of theirs is not there, or means something else; by key.
    """

    recipe: Recipe
    notes: dict[str, str]


def convert(theirs: TheirFile, around: Around) -> Converted:
    """Return the recipe that trains as LLaMA-Factory would.

    Raises:
        RecipeError: naming the key and its line, if it cannot.
    """
    check_trains(theirs)
    _check_resume(theirs, around)
    check_keys(theirs, TRAINING)
    check_together(theirs)
    theirs, spared = spare_senses(theirs, around)
    sections = _sections(theirs, around)
    recipe = _build(theirs, sections)
    notes = _notes(theirs, _choose(theirs, around))
    if theirs.has("rope_scaling") and fits(theirs, around):
        notes["rope_scaling"] = "the model takes rows of cutoff_len as it is"
    idle = find_idle(theirs, sections, lambda fewer: _sections(fewer, around))
    return Converted(recipe, idle | notes | spared)


def _build(theirs: TheirFile, sections: dict[str, Any]) -> Recipe:
    """Build a recipe that contradicts itself nowhere.

    Raises:
        RecipeError: naming the key that an option of ours stands for.
    """
    try:
        recipe = build_recipe(sections, theirs.ours, where=str(theirs.path))
        check_rules(recipe)
    except RecipeError as problem:
        option = re.sub(r"\.\d+", "", problem.where.rpartition(", ")[2])
        keys = (name for name in theirs.given if option in list_keys()[name].to.split(", "))
        name = next(keys, None)
        if name is None or any(option in given for given in theirs.ours):
            raise
        raise theirs.refusal(name, f"{name}: {problem.message}", problem.hint) from problem
    return recipe


def _choose(theirs: TheirFile, around: Around) -> Choice:
    return Choice() if theirs["stage"] == "pt" else choose_template(theirs, around)


def _sections(theirs: TheirFile, around: Around) -> dict[str, Any]:
    chosen = _choose(theirs, around)
    return {
        "model": _model(theirs, chosen, around),
        "data": convert_data(theirs, chosen.system),
        "method": convert_method(theirs),
        "tuning": convert_tuning(theirs),
        "optimizer": convert_optimizer(theirs, around.processes),
        "compute": convert_compute(theirs),
        "evaluate": convert_evaluate(theirs),
        "run": convert_run(theirs),
    }


def _check_resume(theirs: TheirFile, around: Around) -> None:
    """Refuse to go on from a folder, and name the run that goes on.

    Raises:
        RecipeError: if the file asks for it, or theirs would without being asked.
    """
    asked, folder = theirs.has("resume_from_checkpoint"), output_folder(theirs)
    if folder is None or (theirs["overwrite_output_dir"] and not asked):
        return
    run = around.unfinished(folder)
    if run is None:
        return
    raise theirs.refusal(
        "resume_from_checkpoint" if asked else "output_dir",
        f"the run {run} trains into this folder and has not ended",
        f"`tunesmith runs resume {run}` goes on; to begin again, write overwrite_output_dir: true "
        "and no resume_from_checkpoint",
    )


def spare_senses(theirs: TheirFile, around: Around) -> tuple[TheirFile, dict[str, str]]:
    """Leave out what is for images where the model reads text alone: there it does nothing either.

    Returns:
        The file without these keys, and why they are left out.
    """
    if (
        not theirs.has("model_name_or_path")
        or around.sees(theirs["model_name_or_path"]) is not False
    ):
        return theirs, {}
    left_out = {name: "the model reads text alone" for name in OF_SENSES if theirs.has(name)}
    kept = {name: value for name, value in theirs.given.items() if name not in left_out}
    notes = {
        name: why for name, why in left_out.items() if not is_off(list_keys()[name], theirs[name])
    }
    return replace(theirs, given=kept), notes


def _model(theirs: TheirFile, chosen: Choice, around: Around) -> dict[str, Any]:
    model: dict[str, Any] = {"name": theirs["model_name_or_path"]}
    if theirs["train_from_scratch"]:
        model["from_scratch"] = True
    if adapters := adapters_beneath(theirs):
        model["adapters"] = adapters
    if chosen.template is not None:
        model["template"] = chosen.template
    if theirs["shift_attn"]:
        model["shifted_attention"] = max(theirs["cutoff_len"] // 4 // 2 * 2, 2)
    if rope := convert_rope(theirs, around):
        model["rope_scaling"] = rope
    if theirs["quantization_bit"] is not None:
        model["quantize"] = convert_quantize(theirs)
    return model


def _notes(theirs: TheirFile, chosen: Choice) -> dict[str, str]:
    """Say what becomes of the keys that no option stands for."""
    notes = {}
    for name in theirs.given:
        key = list_keys()[name]
        if is_off(key, theirs[name]):
            continue
        if theirs["stage"] == "ppo" and name in OF_ANSWERS:
            continue
        if key.ignored:
            notes[name] = key.ignored
        elif key.group == "generate" or key.to.startswith(OF_OTHERS):
            notes[name] = "it is for chat and export"
    meanings = {name: text for name, text in _meanings(theirs, chosen).items() if text}
    return notes | note_ppo(theirs) | meanings


def _meanings(theirs: TheirFile, chosen: Choice) -> dict[str, str]:
    """Say where a key means nearly what it means there."""
    packed = theirs["stage"] == "sft" and (theirs["packing"] or theirs["neat_packing"])
    dropped = theirs["stage"] in ("dpo", "kto", "ppo") and theirs["lora_dropout"]
    neither = "so that ratios begin at 1" if theirs["stage"] == "ppo" else "there neither"
    strategy = theirs["mix_strategy"]
    said = {
        "template": (bool(chosen.note), chosen.note),
        "packing": (
            bool(packed),
            "rows lie end to end anyway, none sees another; an update holds as many tokens",
        ),
        "lora_dropout": (bool(dropped), f"{theirs['stage']} drops nothing, {neither}"),
        "ppo_epochs": (
            theirs["stage"] == "ppo",
            "each is an update, and steps are counted in updates: those of theirs times these",
        ),
        "mix_strategy": (
            strategy in ("interleave_under", "interleave_over"),
            "sets are mixed in exactly these shares, where theirs are drawn row by row",
        ),
        "shift_attn": (
            theirs["shift_attn"],
            "groups are a quarter of cutoff_len, not of each batch's longest row",
        ),
        "max_samples": (theirs.has("max_samples"), "rows are drawn with the seed, not the first"),
        "per_device_eval_batch_size": (
            theirs.has("per_device_eval_batch_size") and not has_held_out(theirs),
            "there are no held-out rows",
        ),
        "asft_alpha": (
            theirs.has("asft_alpha") and not theirs["use_asft_loss"],
            "use_asft_loss is not true",
        ),
        "eaft_alpha": (
            theirs.has("eaft_alpha") and not theirs["use_eaft_loss"],
            "use_eaft_loss is not true",
        ),
        "eval_steps": (
            theirs.has("eval_steps") and theirs["eval_strategy"] != "steps",
            "eval_strategy is not steps",
        ),
    }
    return {name: text for name, (wrong, text) in said.items() if wrong}


def has_held_out(theirs: TheirFile) -> bool:
    """Whether there are rows that are measured and not learned."""
    return theirs.has("eval_dataset") or bool(theirs["val_size"])
