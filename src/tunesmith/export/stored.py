"""How weights are stored, and what was stored, loaded as a server would."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError, RecipeError
from tunesmith.export.order import Order
from tunesmith.export.parity import check_tokens
from tunesmith.models.chat import ChatModel, Subject, find_subject, load_subject
from tunesmith.models.inspect import read_config
from tunesmith.models.value import FILE, VALUE

if TYPE_CHECKING:
    import torch

STORED = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def precision_of(order: Order) -> str:
    """Name the precision in which an export stores whole weights."""
    return stored_precision(order.subject) if order.precision == "auto" else order.precision


def dtype_of(precision: str) -> torch.dtype:
    """Return torch's type of a precision."""
    import torch

    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


def stored_precision(subject: Subject) -> str:
    """Name the precision in which the weights that a model started from are stored."""
    base, run = subject.base, subject.run
    if run is not None:
        try:
            base = find_subject(run.path, base_only=True).base
        except (ModelError, RecipeError):  # a whole model can be exported when its base is gone
            base = run.model
    config = read_config(base / "config.json")
    text = config.get("text_config") or {}
    named = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32"
    return STORED.get(str(named).removeprefix("torch."), "fp32")


def load_stored(folder: Path, probes: Sequence[dict[str, Any]]) -> ChatModel:
    """Load what was written, as a server would."""
    stored = load_subject(Subject(folder.name, folder), precision="fp32", device="cpu")
    check_tokens(stored, probes)
    return stored


def keep_value_head(weights: Path, folder: Path) -> None:
    """Keep what PPO goes on from, apart: servers load all weights that lie beside theirs."""
    if (weights / FILE).is_file():
        (folder / VALUE).mkdir()
        shutil.copyfile(weights / FILE, folder / VALUE / FILE)
