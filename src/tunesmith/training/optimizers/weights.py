"""The weights that a run trains, each with what an optimizer must know of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.models.inner import token_ends
from tunesmith.models.score import find_score
from tunesmith.models.tuning import LAYER
from tunesmith.models.value import find_value_head
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.tuning import LoRA

if TYPE_CHECKING:
    import torch

ZERO_AT_FIRST = ".lora_B."


@dataclass(frozen=True)
class Weight:
    """One tensor that is trained.

    Attributes:
        layer: number of its layer from the lowest, or None outside the layers.
        is_end: whether it belongs to the embeddings or the head.
        rate: its learning rate's share of the peak.
    """

    name: str
    tensor: torch.nn.Parameter
    layer: int | None
    is_end: bool
    rate: float

    @property
    def is_hidden_matrix(self) -> bool:
        """Whether it is a matrix between embeddings and head."""
        return self.tensor.dim() == 2 and not self.is_end


def list_weights(model: torch.nn.Module, recipe: Recipe) -> list[Weight]:
    """List what is trained, in the order of the model."""
    ends = (*token_ends(model), find_score(model), find_value_head(model))
    at_ends = {id(weight) for end in ends if end is not None for weight in end.parameters()}
    trained = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    rates = _rates([name for name, _ in model.named_parameters()], recipe)
    return [
        Weight(
            name=name,
            tensor=tensor,
            layer=_layer(name),
            is_end=id(tensor) in at_ends,
            rate=rates(name),
        )
        for name, tensor in trained
    ]


def _layer(name: str) -> int | None:
    match = LAYER.search(name)
    return int(match[1]) if match else None


def _rates(names: Sequence[str], recipe: Recipe) -> Callable[[str], float]:
    """Find out how much slower a weight learns than the fastest layer, or how much faster."""
    decay, tuning = recipe.optimizer.layer_decay, recipe.tuning
    layers = [_layer(name) for name in names]
    count = 1 + max((layer for layer in layers if layer is not None), default=-1)
    first = next((at for at, layer in enumerate(layers) if layer is not None), 0)
    below = set(names[:first])

    def rate(name: str) -> float:
        if isinstance(tuning, LoRA):
            return tuning.lora_plus_ratio if ZERO_AT_FIRST in name else 1.0
        layer = _layer(name)
        above = count if name in below else 0 if layer is None else count - 1 - layer
        return float(decay**above)

    return rate


def group_weights(
    weights: Iterable[Weight],
    recipe: Recipe,
    *,
    decaying: Collection[str],
    marked: Callable[[Weight], dict[str, Any]] = lambda _: {},
) -> list[dict[str, Any]]:
    """Put together what is moved alike: for each rate those that decay and those that do not.

    Both are there even where one is empty, so that checkpoints of any run fit.

    Args:
        decaying: names of the weights that weight decay pulls at.
        marked: what else an optimizer must know of a weight.
    """
    options = recipe.optimizer
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for weight in weights:
        mark = marked(weight)
        key = (weight.rate, *mark.items())
        if key not in groups:
            groups[key] = [
                {"params": [], "weight_decay": decay, "lr": options.learning_rate * weight.rate}
                | mark
                for decay in (options.weight_decay, 0.0)
            ]
        pair = groups[key]
        pair[weight.name not in decaying]["params"].append(weight.tensor)
    return [group for pair in groups.values() for group in pair]
