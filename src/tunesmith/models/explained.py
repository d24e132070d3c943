"""Directions in which a layer's inputs differ most, found some inputs at a time.

This is how EVA lets LoRA begin (Paischer et al. 2024, arXiv:2410.07170): `A` looks where the rows
of a run differ, and ranks go to the layers where they explain most.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from tunesmith.models.beginnings import NAME

if TYPE_CHECKING:
    from peft import PeftModel

SPARE = 2
"""Directions that are followed for each that may be taken; what is cut off is lost."""
FLAT = 1e-10
"""Share of the largest variance below which a direction is noise of the numbers themselves."""


class Spread:
    """The main directions of the inputs seen so far (Ross et al. 2008, incremental SVD).

    Args:
        most: directions that are followed.
    """

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self.scaled: torch.Tensor | None = None
        self.mean: torch.Tensor | None = None
        self.total = 0.0

    def add(self, inputs: torch.Tensor) -> None:
        """Take in further inputs, [inputs, in]."""
        given = inputs.float()
        mean, count = given.mean(dim=0), len(given)
        given = given - mean
        self.total += float(given.square().sum())
        if self.scaled is None or self.mean is None:
            self.scaled, self.mean, self.count = _main_part(given, self.most), mean, count
            return
        both = self.count + count
        apart = (self.mean - mean) * (self.count * count / both) ** 0.5
        self.total += float(apart.square().sum())
        stacked = torch.cat([self.scaled, given, apart[None]])
        self.mean = self.mean + (mean - self.mean) * (count / both)
        self.scaled, self.count = _main_part(stacked, self.most), both

    def directions(self) -> torch.Tensor:
        """Return them at length 1, the main one first; [directions, in]."""
        assert self.scaled is not None  # who has seen nothing has no share, and is not asked
        return torch.nn.functional.normalize(self.scaled, dim=1)

    def shares(self) -> list[float]:
        """Tell how much of all variance each explains."""
        if self.scaled is None:
            return []
        found: list[float] = (self.scaled.square().sum(dim=1) / max(self.total, 1e-30)).tolist()
        return found


def _main_part(rows: torch.Tensor, most: int) -> torch.Tensor:
    """Turn rows so that the first are as long as can be, and keep those; [directions, in].

    Of rows and columns the fewer are compared with each other: two small products and a small
    eigenvalue problem instead of an SVD.
    """
    tall = len(rows) > rows.shape[1]
    small = rows.t() @ rows if tall else rows @ rows.t()
    squares, vectors = torch.linalg.eigh(small.double())
    squares, vectors = squares.flip(0)[:most], vectors.flip(1)[:, :most]
    real = squares > FLAT * squares[0].clamp(min=1e-30)
    squares, vectors = squares[real], vectors[:, real].float()
    main: torch.Tensor = (
        vectors.t() * squares.sqrt().float()[:, None] if tall else vectors.t() @ rows
    )
    return main


def share_ranks(shares: Mapping[str, Sequence[float]], *, budget: int, most: int) -> dict[str, int]:
    """Give each layer the ranks that explain more of its inputs than those of others do.

    Args:
        shares: of variance, largest first, by layer.
        budget: ranks of all layers.
        most: ranks of a layer.
    """
    offers = [
        (-share, place, name)
        for name, found in shares.items()
        for place, share in enumerate(found[:most])
    ]
    ranks = dict.fromkeys(shares, 0)
    for _, _, name in sorted(offers, key=lambda offer: offer[:2])[:budget]:
        ranks[name] += 1
    return ranks


def adapted_layers(model: torch.nn.Module) -> dict[str, Any]:
    """Find the layers of LoRA by name."""
    from peft.tuners.lora.layer import LoraLayer

    return {name: layer for name, layer in model.named_modules() if isinstance(layer, LoraLayer)}


def begin_in(model: PeftModel, directions: Mapping[str, torch.Tensor]) -> None:
    """Let each layer's first matrix be the directions found for it; one without any is left out.

    What the product is multiplied with stays the same, whatever the rank is now.

    Args:
        directions: [rank, in] by the name of a layer.
    """
    config: Any = model.peft_config[NAME]
    ranks, alphas, kept = {}, {}, []
    for name, layer in adapted_layers(model).items():
        inner = name.removeprefix("base_model.model.")
        found = directions.get(name)
        if found is None or not len(found):
            parent, _, last = name.rpartition(".")
            model.get_submodule(parent).register_module(last, layer.get_base_layer())
            continue
        kept.append(inner)
        ranks[inner], alphas[inner] = _become(layer, found, rslora=config.use_rslora)
    config.target_modules = set(kept)
    config.rank_pattern = {name: rank for name, rank in ranks.items() if rank != config.r}
    config.alpha_pattern = {
        name: alpha for name, alpha in alphas.items() if alpha != config.lora_alpha
    }


def _become(layer: Any, found: torch.Tensor, *, rslora: bool) -> tuple[int, float]:
    """Give a layer as many ranks as directions; return rank and alpha."""
    rank, width = found.shape
    a, b, scale = layer.lora_A[NAME], layer.lora_B[NAME], layer.scaling[NAME]
    if rank != layer.r[NAME]:
        out = b.weight.shape[0]
        a.weight = torch.nn.Parameter(a.weight.new_empty(rank, width), a.weight.requires_grad)
        b.weight = torch.nn.Parameter(b.weight.new_zeros(out, rank), b.weight.requires_grad)
        a.out_features = b.in_features = rank
    a.weight.data.copy_(found)
    alpha = scale * (rank**0.5 if rslora else rank)
    layer.r[NAME], layer.lora_alpha[NAME] = rank, alpha
    return rank, alpha
