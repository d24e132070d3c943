"""Find what is wrong with a file: which of its weights differs most from the model's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import require
from tunesmith.export.gguf.tensors import Tensor, list_tensors
from tunesmith.export.gguf.write import open_model

if TYPE_CHECKING:
    import numpy as np

    from tunesmith.models.chat import ChatModel

SAME = 1e-7
"""Weights that differ by less of their size are the same."""


def find_fault(path: Path, chat: ChatModel) -> str:
    """Say which weight of a file differs most, relative to its size."""
    gguf = require("gguf", extra="gguf")
    model, config, family = open_model(chat)
    stored = {tensor.name: tensor for tensor in gguf.GGUFReader(str(path)).tensors}
    errors = {
        tensor: _error(tensor, stored[tensor.name])
        for tensor in list_tensors(model, family, config)
        if tensor.name in stored
    }
    worst = max(errors, key=lambda tensor: errors[tensor])
    if errors[worst] <= SAME:
        return "all weights are those of the model, so llama.cpp computes something else with them"
    return f"the weight {worst.source} differs most: by {errors[worst]:.1%} of its size"


def _error(tensor: Tensor, stored: Any) -> float:
    """Return the root of the mean squared error over that of the values."""
    import numpy as np

    gguf = require("gguf", extra="gguf")
    wanted = tensor.read().astype(np.float64)
    found: np.ndarray[Any, Any] = gguf.quants.dequantize(stored.data, stored.tensor_type)
    size = float(np.sqrt((wanted**2).mean())) or 1.0
    error = float(np.sqrt(((found.reshape(wanted.shape) - wanted) ** 2).mean())) / size
    return error if np.isfinite(error) else float("inf")
