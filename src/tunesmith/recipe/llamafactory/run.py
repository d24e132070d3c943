"""How long a LLaMA-Factory file trains, what it measures and what it keeps."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any

from tunesmith.paths import expand
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.ppo import updates_of_a_step
from tunesmith.recipe.llamafactory.values import split
from tunesmith.recipe.section import MOST

RARE = ("tf32", "full_determinism", "torch_empty_cache_steps")
FOLDERS_IN_A_NAME, LONGEST_NAME = 3, 64


def convert_run(theirs: TheirFile) -> dict[str, Any]:
    """Describe length, name, seed and checkpoints."""
    run: dict[str, Any] = {
        "name": name_run(theirs),
        "seed": theirs["seed"],
        "log_every_steps": _steps(theirs, "logging_steps", "logging_strategy", epoch=1),
        "save_every_steps": _steps(theirs, "save_steps", "save_strategy", epoch=0),
        "compatible_outputs": True,
    }
    if theirs["max_steps"] > 0:
        run["steps"] = theirs["max_steps"] * updates_of_a_step(theirs)
    else:
        run["epochs"] = theirs["num_train_epochs"]
    if theirs["save_total_limit"]:
        run["keep_checkpoints"] = theirs["save_total_limit"]
    if theirs.has("output_dir"):
        run["publish_to"] = str(_folder(theirs))
    extra = {name: theirs[name] for name in RARE if theirs[name] not in (None, False)}
    return {**run, "extra": extra} if extra else run


def output_folder(theirs: TheirFile) -> Path | None:
    """Find the folder that a file names for what it makes."""
    return expand(theirs["output_dir"]).absolute() if theirs.has("output_dir") else None


def _folder(theirs: TheirFile) -> Path:
    """Return the folder that gets the model, if it may be written to.

    Raises:
        RecipeError: if somebody's files are in it.
    """
    folder = output_folder(theirs)
    assert folder is not None
    taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if taken and not theirs["overwrite_output_dir"]:
        raise theirs.refusal(
            "output_dir",
            f"{theirs['output_dir']} is there already and not empty",
            "name another folder, or write overwrite_output_dir: true to replace its model",
        )
    return folder


def name_run(theirs: TheirFile) -> str:
    """Name the run as theirs, or after the last folders of `output_dir`."""
    name = theirs["run_name"]
    if name is None and theirs.has("output_dir"):
        parts = [
            part
            for part in PurePosixPath(theirs["output_dir"]).parts
            if part not in ("/", ".", "..")
        ]
        name = "-".join(part for part in parts[-FOLDERS_IN_A_NAME:] if part != "saves")
    cleaned = re.sub(r"[^A-Za-z0-9._-]+", "-", name or "").lstrip("._-")
    return cleaned[:LONGEST_NAME] or "run"


def convert_evaluate(theirs: TheirFile) -> dict[str, Any]:
    """Describe when held-out rows are measured."""
    if not theirs.has("eval_dataset") and not theirs["val_size"]:
        return {}
    every = 0
    if theirs["eval_strategy"] == "steps":
        name = "eval_steps" if theirs.has("eval_steps") else "logging_steps"
        every = whole_steps(theirs, name)
    found = {"every_steps": every, "batch_size": theirs["per_device_eval_batch_size"]}
    best = _best_set(theirs)
    return {**found, "best_on": best} if best else found


def _best_set(theirs: TheirFile) -> str | None:
    """Return the held-out set whose loss says which weights are best; None for all of them.

    Raises:
        RecipeError: if another measure is to say it.
    """
    metric = theirs["metric_for_best_model"]
    if metric in (None, "loss", "eval_loss"):
        return None
    sets = split(theirs["eval_dataset"] or "") if theirs["eval_on_each_dataset"] else []
    name = next((name for name in sets if metric in (f"eval_{name}_loss", f"{name}_loss")), None)
    if name is None:
        raise theirs.refusal(
            "metric_for_best_model",
            f"metric_for_best_model: {metric} cannot say which weights are best; a held-out loss "
            "can",
            "remove it, or write metric_for_best_model: eval_loss, or eval_NAME_loss with "
            "eval_on_each_dataset: true",
        )
    return name


def _steps(theirs: TheirFile, name: str, strategy: str, *, epoch: int) -> int:
    """Return each how many steps something is due.

    Args:
        epoch: the number that stands for once an epoch, or is nearest to it.
    """
    if theirs[strategy] == "epoch":
        return epoch
    return MOST if theirs[strategy] in ("no", "best") else whole_steps(theirs, name)


def whole_steps(theirs: TheirFile, name: str) -> int:
    """Return a number of steps.

    Raises:
        RecipeError: if it is a share of all steps.
    """
    steps = theirs[name]
    if steps < 1:
        raise theirs.refusal(name, f"{name} cannot be a share of all steps", "write how many steps")
    return int(steps) * updates_of_a_step(theirs)
