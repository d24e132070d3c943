"""Look at the machine and its models for what a LLaMA-Factory file leaves open."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import ModelError, TunesmithError
from tunesmith.models.inspect import read_config
from tunesmith.models.locate import locate
from tunesmith.models.senses import sees
from tunesmith.recipe.llamafactory.around import Around
from tunesmith.runs.store import list_runs


def look_around() -> Around:
    """Count the GPUs, of which each would be a process there."""
    import torch

    return Around(
        max(1, torch.cuda.device_count()),
        has_template,
        takes_more_than_text,
        positions_of,
        find_unfinished,
    )


def has_template(name: str) -> bool | None:
    """Whether a model ships a chat template; None if it is not on this machine."""
    try:
        folder = locate(name)
        if (folder / "chat_template.jinja").is_file():
            return True
        config = folder / "tokenizer_config.json"
        return config.is_file() and bool(read_config(config).get("chat_template"))
    except ModelError:
        return None


def takes_more_than_text(name: str) -> bool | None:
    """Whether a model sees or hears; None if it is not on this machine."""
    try:
        return sees(locate(name))
    except ModelError:
        return None


def positions_of(name: str) -> int | None:
    """Return how many tokens a model takes; None if its configuration does not say."""
    try:
        config = read_config(locate(name) / "config.json")
    except ModelError:
        return None
    text = config.get("text_config") or config
    taken = text.get("max_position_embeddings")
    return taken if isinstance(taken, int) else None


def find_unfinished(folder: Path) -> str | None:
    """Find the newest run that would put its model into a folder, if it has more to do."""
    for run in reversed(list_runs()):
        try:
            to = run.recipe().run.publish_to
        except TunesmithError:
            continue
        if to == folder:
            begun = run.status().state != "done" and any(run.checkpoints.glob("*"))
            return run.name if begun else None
    return None
