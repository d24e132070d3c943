"""The table of LLaMA-Factory's keys: the one source of what each of them becomes."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tunesmith.recipe.yaml_file import read_yaml

TABLE = Path(__file__).with_name("keys.yaml")


@dataclass(frozen=True)
class Key:
    """One key of a LLaMA-Factory file.

    Attributes:
        group: what it is about: model, data, method, generate, train, evaluate, megatron.
        type: flag, count, number, text, list, mapping, or the words it takes.
        default: what it is there if not given.
        to: the option of ours it becomes.
        ignored: why nothing is lost without it.
        refused: why it cannot be done; only its default is accepted.
        hint: what to do instead of what is refused.
    """

    name: str
    group: str
    type: str | list[str]
    default: Any
    to: str = ""
    ignored: str = ""
    refused: str = ""
    hint: str = ""


@cache
def list_keys() -> dict[str, Key]:
    """List every key by its name, in the order of the table."""
    return {name: Key(name, **entry) for name, entry in read_yaml(TABLE).items()}
