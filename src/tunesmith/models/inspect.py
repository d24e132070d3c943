"""Look at a model's files before any library may act on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.models.remote import code_asked

REMOTE_CODE_KEYS = ("auto_map", "trust_remote_code", "megatron_config")
KERNEL_KEYS = ("attn_implementation", "experts_implementation")
ADAPTER = "adapter_config.json"
BELONGS_TO = "base.json"
"""Our note beside an adapter: its base and, if it is a classifier, its labels."""
LABELS = "labels"
SCORERS = ("ForSequenceClassification", "ForImageClassification")
"""How the names of architectures end that score texts or images."""
CONFIG_FILES = (
    "config.json",
    "tokenizer_config.json",
    "generation_config.json",
    ADAPTER,
    "processor_config.json",
    "preprocessor_config.json",
)


def check_files(folder: Path, *, weights: bool = True) -> dict[str, Any]:
    """Refuse a folder that could run code or that lacks its weights; return its config.

    Never opens a pickle and never imports a module that the folder names.

    Raises:
        ModelError: naming the file and the field.
    """
    own = folder / "config.json"
    kind = read_config(own).get("model_type") if own.exists() else None
    for name in CONFIG_FILES:
        if (folder / name).exists():
            check_config(folder / name, kind)
    config = read_config(own)
    if weights and not list(folder.glob("*.safetensors")):
        raise _no_weights(folder)
    if weights and (folder / ADAPTER).exists():
        raise ModelError(
            "the folder holds an adapter beside a model, and both would be loaded as one",
            hint=f"move {ADAPTER} and the adapter's weights to a folder of their own",
            where=str(folder),
        )
    return config


def is_scorer(folder: Path) -> bool:
    """Whether a folder of weights, or of an adapter, is of a model that scores texts or images."""
    if (folder / ADAPTER).is_file():
        scores = read_config(folder / ADAPTER).get("task_type") == "SEQ_CLS"
        return bool(scores or labels_of(folder))
    kinds = check_files(folder, weights=False).get("architectures") or ()
    return any(str(kind).endswith(SCORERS) for kind in kinds)


def labels_of(folder: Path) -> tuple[str, ...]:
    """List the labels that a model, or an adapter of ours, tells apart; none if it does not."""
    if (folder / ADAPTER).is_file():
        noted = folder / BELONGS_TO
        known = read_config(noted).get(LABELS) if noted.is_file() else None
        return tuple(map(str, known)) if isinstance(known, list) else ()
    config = check_files(folder, weights=False)
    kinds = config.get("architectures") or ()
    if not any(str(kind).endswith(SCORERS) for kind in kinds):
        return ()
    named = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}  # what transformers omits
    try:
        numbered = sorted((int(number), str(label)) for number, label in named.items())
    except (AttributeError, ValueError):
        raise ModelError(
            f"the field id2label numbers no labels: {str(named)[:60]}",
            hint='write it as {"0": "one label", "1": "another"}',
            where=str(folder / "config.json"),
        ) from None
    return tuple(label for _, label in numbered) if len(numbered) > 1 else ()


def read_config(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        ModelError: if it is missing, not JSON or not an object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{path.name} is missing",
            hint="copy the whole model folder",
            where=str(path.parent),
        ) from None
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as problem:
        raise ModelError(
            f"not readable as JSON: {problem}",
            hint="copy the model folder again; the file is damaged",
            where=str(path),
        ) from None
    if not isinstance(content, dict):
        raise ModelError(
            "not a JSON object",
            hint="copy the model folder again; the file is damaged",
            where=str(path),
        )
    return content


def check_config(path: Path, kind: object = None) -> None:
    """Refuse a configuration that names code outside of the libraries we ship with.

    Args:
        kind: `model_type` of the folder, where it has one.

    Raises:
        ModelError: naming the file and the field.
    """
    for dotted, value in _walk(read_config(path), ""):
        key = dotted.rsplit(".", 1)[-1]
        if (key in REMOTE_CODE_KEYS and value) or _asks_for_kernel(key, value):
            raise code_asked(path, dotted, kind)


def _asks_for_kernel(key: str, value: Any) -> bool:
    """Whether an implementation is named by a repository instead of being a built-in one."""
    return key.lstrip("_").startswith(KERNEL_KEYS) and "/" in str(value)


def _walk(value: Any, dotted: str) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    items = value.items() if isinstance(value, dict) else []
    for key, inner in items:
        name = f"{dotted}.{key}" if dotted else str(key)
        found.append((name, inner))
        found += _walk(inner, name)
    if isinstance(value, list):
        for inner in value:
            found += _walk(inner, dotted)
    return found


def _no_weights(folder: Path) -> ModelError:
    pickles = sorted(
        path.name
        for pattern in ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
        for path in folder.glob(pattern)
    )
    if pickles:
        return ModelError(
            f"the weights are a pickle ({pickles[0]}), which can run code when it is opened",
            hint="convert them to safetensors on a machine where you trust the file",
            where=str(folder),
        )
    return ModelError(
        "the folder holds no weights (*.safetensors)",
        hint="copy the whole model folder, or write model.from_scratch: true",
        where=str(folder),
    )
