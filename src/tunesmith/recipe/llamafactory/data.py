"""The rows that a LLaMA-Factory file names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.paths import exists, expand
from tunesmith.recipe.llamafactory.file import TheirFile
from tunesmith.recipe.llamafactory.values import split

INFO = "dataset_info.json"
SHOWING = {
    "media_dir": "media",
    "image_max_pixels": "image_pixels",
    "video_fps": "video_fps",
    "video_maxlen": "video_frames",
    "video_max_pixels": "video_pixels",
}
ENDS = {"interleave_under": "first", "interleave_over": "last"}


def convert_data(theirs: TheirFile, system: str | None) -> dict[str, Any]:
    """Describe the sets and how rows are cut.

    Args:
        system: the prompt of the template, where the file gives none.
    """
    data = {
        **_read_rows(theirs, "dataset", system),
        "workers": theirs["dataloader_num_workers"],
    }
    if data["train"][0].get("weight") is not None:
        data["mix_until"] = ENDS[theirs["mix_strategy"]]
    if theirs.has("eval_dataset"):
        data["validation"] = _sources(theirs, "eval_dataset")
    size = theirs["val_size"]
    if 0 < size < 1:
        data["validation_share"] = size
    elif size:
        data["validation_rows"] = int(size)
    return data


def convert_measured(theirs: TheirFile, system: str | None) -> dict[str, Any]:
    """Describe the sets that a trained model is measured on."""
    data = _read_rows(theirs, "eval_dataset", system)
    data["train"] = [
        {key: value for key, value in source.items() if key != "name"} for source in data["train"]
    ]
    return data


def _read_rows(theirs: TheirFile, name: str, system: str | None) -> dict[str, Any]:
    """Describe the sets that a key names, and how their rows are read."""
    data: dict[str, Any] = {
        "train": _sources(theirs, name),
        "info": str(find_info(theirs)),
        "max_tokens": theirs["cutoff_len"],
        "on_bad_row": "skip",
    }
    data |= {ours: theirs[name] for name, ours in SHOWING.items() if theirs.has(name)}
    if theirs["stage"] != "pt" and (theirs["default_system"] or system):
        data["system"] = theirs["default_system"] or system
    return data


def find_info(theirs: TheirFile) -> Path:
    """Find the file that describes the sets: in the current folder, or beside theirs.

    Raises:
        RecipeError: if there is none.
    """
    folder = theirs["dataset_dir"]
    if folder == "ONLINE" or folder.startswith("REMOTE:"):
        raise theirs.refusal(
            "dataset_dir",
            "nothing is downloaded",
            f"download the sets, and write dataset_dir: the folder of their {INFO}",
        )
    for above in (Path.cwd(), theirs.path.absolute().parent):
        info = above / expand(folder)
        info = info if info.suffix == ".json" else info / INFO
        if exists(info):
            return info
    raise theirs.refusal(
        "dataset_dir",
        f"there is no {INFO} in {folder}, which would describe the sets",
        "write dataset_dir: the folder it lies in",
    )


def _sources(theirs: TheirFile, name: str) -> list[Any]:
    sets = split(theirs[name])
    weights = _weights(theirs, len(sets)) if name == "dataset" else None
    found = []
    for number, path in enumerate(sets):
        source: dict[str, Any] = {"path": path}
        if theirs.has("max_samples"):
            source["max_rows"] = theirs["max_samples"]
        if weights:
            source["weight"] = weights[number]
        if name == "eval_dataset" and theirs["eval_on_each_dataset"]:
            source["name"] = path
        found.append(source)
    return found


def _weights(theirs: TheirFile, count: int) -> list[float] | None:
    """Return the shares of sets that are interleaved; `interleave_once` uses each row once."""
    if theirs["mix_strategy"] in ("concat", "interleave_once") or count == 1:
        return None
    if not theirs.has("interleave_probs"):
        return [1.0] * count
    try:
        return [float(share) for share in split(theirs["interleave_probs"])]
    except ValueError:
        raise theirs.refusal(
            "interleave_probs", "the shares are no numbers", "write them with commas: 0.7,0.3"
        ) from None
