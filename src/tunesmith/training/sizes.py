"""What a layer's sizes tell of the numbers that it keeps for the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tunesmith.hardware import Precision


@dataclass(frozen=True)
class Kept:
    """What a forward pass keeps for the way back, in bytes.

    Attributes:
        fixed: however few tokens it sees, such as weights in 16 bits.
        per_token: for each token.
        moved: of these, what may lie in main memory meanwhile.
    """

    fixed: float
    per_token: float
    moved: float = 0.0


@dataclass(frozen=True)
class Sizes:
    """What a layer's activations are made of; width is bytes a number."""

    hidden: int
    inner: int
    layers: int
    width: int


def read_sizes(model: Any, precision: Precision) -> Sizes:
    """Read the sizes of a language model's layers."""
    config = model.config.get_text_config().to_dict()
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 1)
    inner = config.get("intermediate_size") or 4 * hidden
    return Sizes(
        hidden=hidden,
        inner=max(map(int, inner)) if isinstance(inner, list) else int(inner),
        layers=int(config.get("num_hidden_layers") or config.get("n_layer") or 1),
        width=4 if precision == "fp32" else 2,
    )


def kept_by_sizes(sizes: Sizes, *, checkpointing: bool) -> Kept:
    """Estimate what is kept by sizes alone."""
    layer = float(sizes.width * (14 * sizes.hidden + 5 * sizes.inner))
    if not checkpointing:
        return Kept(0.0, sizes.layers * layer)
    inputs = float(sizes.layers * sizes.hidden * sizes.width)
    return Kept(0.0, layer + inputs, inputs * max(0.0, 1 - 2 / sizes.layers))
