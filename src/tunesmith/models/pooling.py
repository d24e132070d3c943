"""How an embedding model makes a point of a text, as sentence-transformers writes it down."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.errors import ModelError
from tunesmith.models.inspect import read_config

MODULES = "modules.json"
FLAGS = {
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}
"""How older files name ways, one flag for each, and what newer ones call them."""
KINDS: dict[str, Literal["mean", "first", "last"]] = {
    "mean": "mean",
    "cls": "first",
    "lasttoken": "last",
}


@dataclass(frozen=True)
class Pooling:
    """How states of tokens become one point.

    Attributes:
        kind: the mean of all, or that of one token.
        longest: tokens of a text, those that the tokenizer adds included; None for what the model
            takes.
        prefix: what is written before each text.
    """

    kind: Literal["mean", "first", "last"]
    longest: int | None = None
    prefix: str = ""


def is_embedder(folder: Path) -> bool:
    """Whether a model folder is laid out as sentence-transformers does."""
    return (folder / MODULES).is_file()


def read_pooling(folder: Path) -> Pooling:
    """Read how points are made.

    Raises:
        ModelError: if that cannot be read, or is done in a way that is not known here.
    """
    kind: Literal["mean", "first", "last"] | None = None
    for module in _modules(folder):
        name = str(module.get("type", "")).rsplit(".", 1)[-1]
        inside = str(module.get("path", ""))
        if name == "Pooling":
            kind = _read_kind(folder / inside / "config.json")
        elif name == "Transformer" and inside:
            raise _unknown("the model lies in a folder of its own", folder / MODULES)
        elif name not in ("Transformer", "Normalize"):
            raise _unknown(f"a module {name} changes the points", folder / MODULES)
    if kind is None:
        raise _unknown("nothing says how points are made of states", folder / MODULES)
    return Pooling(kind, _read_longest(folder), _read_prefix(folder))


def _modules(folder: Path) -> list[dict[str, Any]]:
    path = folder / MODULES
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
        raise ModelError(
            "not a JSON list of modules", hint="copy the model folder again", where=str(path)
        )
    return found


def _read_kind(path: Path) -> Literal["mean", "first", "last"]:
    config = read_config(path)
    told = config.get("pooling_mode")
    chosen = [told] if told else [name for flag, name in FLAGS.items() if config.get(flag)]
    known = [KINDS[name] for name in chosen if isinstance(name, str) and name in KINDS]
    if len(chosen) != 1 or not known:
        raise _unknown(f"points are made by {chosen or 'nothing'}", path)
    if config.get("include_prompt") is False:
        raise _unknown("what stands before a text is left out of its point", path)
    return known[0]


def _read_longest(folder: Path) -> int | None:
    path = folder / "sentence_bert_config.json"
    longest = read_config(path).get("max_seq_length") if path.is_file() else None
    return longest if isinstance(longest, int) else None


def _read_prefix(folder: Path) -> str:
    """Read what is written before each text; what is written before some alone clients send."""
    path = folder / "config_sentence_transformers.json"
    config = read_config(path) if path.is_file() else {}
    prompts, usual = config.get("prompts") or {}, config.get("default_prompt_name")
    return str(prompts.get(usual, "")) if usual else ""


def _unknown(what: str, path: Path) -> ModelError:
    return ModelError(
        f"the embedding model cannot be used: {what}",
        hint="take one that pools by mean, cls or lasttoken, as most do",
        where=str(path),
    )
