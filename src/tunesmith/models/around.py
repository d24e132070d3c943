"""Look at the machine and its models for what a LLaMA-Factory file leaves open."""

from __future__ import annotations

from tunesmith.errors import ModelError
from tunesmith.models.inspect import read_config
from tunesmith.models.locate import locate
from tunesmith.models.senses import sees
from tunesmith.recipe.llamafactory.around import Around


def look_around() -> Around:
    """Count the GPUs, of which each would be a process there."""
    import torch

    return Around(max(1, torch.cuda.device_count()), has_template, takes_more_than_text)


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
