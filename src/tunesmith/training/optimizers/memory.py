"""What an optimizer remembers, counted from shapes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.recipe.optimizer import Layerwise
from tunesmith.recipe.options import Recipe
from tunesmith.training.optimizers.weights import Weight

SMALLEST_IN_BITS, BLOCK = 4096, 256
"""Weights of fewer numbers are remembered in 32 bits; 8 bits have a factor for each block."""
EXACT = 4


@dataclass(frozen=True)
class Memory:
    """What training holds beside weights and activations, in bytes.

    Attributes:
        held: by the optimizer, during training.
        saved: by the optimizer, in a checkpoint.
        gradients: of all weights that learn at a time.
        gradients_at_once: the most that are there on the way back through an update of one batch.
    """

    held: int
    saved: int
    gradients: int
    gradients_at_once: int


def count_memory(recipe: Recipe, weights: Sequence[Weight], width: int) -> Memory:
    """Count what the optimizer of a recipe needs for some weights.

    Args:
        width: bytes of a number of a trained weight.
    """
    options = recipe.optimizer
    if options.name == "badam":
        largest = width * _largest_layer(weights)
        return Memory(2 * largest, 2 * largest, largest, largest)
    of_one = REMEMBERED[options.name]
    held = sum(of_one(options, weight, width) for weight in weights)
    sizes = [width * weight.tensor.numel() for weight in weights]
    aside = sum(sizes) if options.name == "schedule_free" else 0  # the average is saved too
    freed = isinstance(options, Layerwise) and options.layerwise
    return Memory(held, held + aside, sum(sizes), max(sizes) if freed else sum(sizes))


def _largest_layer(weights: Sequence[Weight]) -> int:
    sizes: dict[int, int] = {}
    for weight in weights:
        if weight.layer is not None:
            sizes[weight.layer] = sizes.get(weight.layer, 0) + weight.tensor.numel()
    return max(sizes.values(), default=0)


def _numbers(each: int) -> Callable[[Any, Weight, int], int]:
    return lambda options, weight, width: each * weight.tensor.numel() * width


def _in_bits(each: int) -> Callable[[Any, Weight, int], int]:
    def count(options: Any, weight: Weight, width: int) -> int:
        size = weight.tensor.numel()
        if weight.is_end or size < SMALLEST_IN_BITS:
            return each * size * EXACT
        return each * (size + -(-size // BLOCK) * EXACT)

    return count


def _rows_and_columns(options: Any, weight: Weight, width: int) -> int:
    shape = weight.tensor.shape
    if len(shape) < 2:
        return weight.tensor.numel() * EXACT
    return (weight.tensor.numel() // shape[-1] + weight.tensor.numel() // shape[-2]) * EXACT


def _sgd(options: Any, weight: Weight, width: int) -> int:
    return weight.tensor.numel() * width if options.momentum else 0


def _muon(options: Any, weight: Weight, width: int) -> int:
    return (1 if weight.is_hidden_matrix else 2) * weight.tensor.numel() * width


def _low_rank(options: Any, weight: Weight, width: int) -> int:
    if not weight.is_hidden_matrix:
        return 2 * weight.tensor.numel() * width
    short, long = sorted(weight.tensor.shape)
    rank = min(1 if options.name == "apollo_mini" else options.rank, short)
    return rank * (2 * long + short) * width


def _adam_mini(options: Any, weight: Weight, width: int) -> int:
    if "bias" in weight.name:
        return 2 * weight.tensor.numel() * width
    rows = weight.tensor.shape[0] if weight.tensor.dim() > 1 else 1
    return (weight.tensor.numel() + rows) * width


REMEMBERED: dict[str, Callable[[Any, Weight, int], int]] = {
    "adamw": _numbers(2),
    "adamw_8bit": _in_bits(2),
    "adamw_paged_8bit": _in_bits(2),
    "lion": lambda options, weight, width: weight.tensor.numel() * EXACT,
    "lion_8bit": _in_bits(1),
    "adafactor": _rows_and_columns,
    "sgd": _sgd,
    "muon": _muon,
    "galore": _low_rank,
    "apollo": _low_rank,
    "apollo_mini": _low_rank,
    "adam_mini": _adam_mini,
    "schedule_free": _numbers(2),
}
"""Bytes remembered of one weight."""
