"""Build the optimizer of a recipe: a line a name in BUILDERS."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError, require
from tunesmith.recipe.optimizer import (
    SGD,
    Adaptive,
    ApolloMini,
    BAdam,
    LowRank,
    Muon,
    ScheduleFree,
    Signs,
)
from tunesmith.recipe.options import Recipe
from tunesmith.training.optimizers.weights import Weight, group_weights, list_weights

if TYPE_CHECKING:
    import torch

EXTRA = "optim"
PACKAGES = {
    "adamw_8bit": "bitsandbytes",
    "adamw_paged_8bit": "bitsandbytes",
    "lion": "bitsandbytes",
    "lion_8bit": "bitsandbytes",
    "adam_mini": "adam-mini",
    "schedule_free": "schedulefree",
}
"""Packages that an optimizer comes from, where it is not torch or transformers."""


@dataclass(frozen=True)
class Parts:
    """What an optimizer is built from.

    Attributes:
        decaying: names of the weights that weight decay pulls at.
    """

    recipe: Recipe
    model: torch.nn.Module
    weights: list[Weight]
    decaying: Collection[str]

    @property
    def options(self) -> Any:
        """The optimizer's section."""
        return self.recipe.optimizer

    def groups(
        self,
        chosen: Callable[[Weight], bool] = lambda _: True,
        marked: Callable[[Weight], dict[str, Any]] = lambda _: {},
    ) -> list[dict[str, Any]]:
        """Group the chosen weights by how they are moved."""
        weights = filter(chosen, self.weights)
        return group_weights(weights, self.recipe, decaying=self.decaying, marked=marked)


def build_optimizer(
    recipe: Recipe, model: torch.nn.Module, *, decaying: Collection[str]
) -> torch.optim.Optimizer:
    """Build the optimizer around the weights that are trained.

    Raises:
        RecipeError: if it cannot move this model's weights here.
        MissingPackage: naming the extra that installs its package.
    """
    parts = Parts(recipe, model, list_weights(model, recipe), decaying)
    return BUILDERS[recipe.optimizer.name](parts)


def packages_of(recipe: Recipe) -> tuple[str, ...]:
    """Name the package that the optimizer comes from, if it is not torch or transformers.

    Raises:
        MissingPackage: naming the extra that installs it.
    """
    found = PACKAGES.get(recipe.optimizer.name)
    if found is None:
        return ()
    require(found.replace("-", "_"), extra=EXTRA)
    return (found,)


def _adaptive(options: Adaptive) -> dict[str, Any]:
    betas = (options.beta1, options.beta2)
    return {"lr": options.learning_rate, "betas": betas, "eps": options.eps}


def _adamw(parts: Parts) -> torch.optim.Optimizer:
    from torch.optim import AdamW

    return AdamW(parts.groups(), **_adaptive(parts.options), fused=True)


def _adamw_8bit(parts: Parts, *, paged: bool = False) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.eight_bits import AdamWInBits

    options = _adaptive(parts.options)
    return AdamWInBits(parts.groups(marked=_bits), **options, optim_bits=8, is_paged=paged)


def _adamw_paged_8bit(parts: Parts) -> torch.optim.Optimizer:
    if not parts.weights[0].tensor.is_cuda:
        raise RecipeError(
            "adamw_paged_8bit moves memory off a GPU, and this run has none",
            hint="write optimizer.name: adamw_8bit",
            where="optimizer.name",
        )
    return _adamw_8bit(parts, paged=True)


def _bits(weight: Weight) -> dict[str, Any]:
    """Embeddings and head stay in 32 bits: most of their gradients are zero, a few are large."""
    return {"bits": 32 if weight.is_end else 8}


def _lion(parts: Parts, *, bits: int = 32) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.eight_bits import LionInBits

    options: Signs = parts.options
    marked = _bits if bits == 8 else lambda _: {"bits": 32}
    return LionInBits(
        parts.groups(marked=marked),
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        optim_bits=bits,
    )


def _lion_8bit(parts: Parts) -> torch.optim.Optimizer:
    return _lion(parts, bits=8)


def _adafactor(parts: Parts) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.adafactor import ExactAdafactor

    return ExactAdafactor(  # type: ignore[no-untyped-call]
        parts.groups(),
        lr=parts.options.learning_rate,
        scale_parameter=False,
        relative_step=False,
    )


def _sgd(parts: Parts) -> torch.optim.Optimizer:
    from torch.optim import SGD as Plain  # noqa: N811

    options: SGD = parts.options
    rate, momentum = options.learning_rate, options.momentum
    return Plain(parts.groups(), lr=rate, momentum=momentum, fused=True)


def _muon(parts: Parts) -> torch.optim.Optimizer:
    from torch.optim import AdamW
    from torch.optim import Muon as Equal

    from tunesmith.training.optimizers.two_optimizers import TwoOptimizers

    _need_matrices(parts)
    options: Muon = parts.options
    hidden = parts.groups(lambda weight: weight.is_hidden_matrix)
    rest = parts.groups(lambda weight: not weight.is_hidden_matrix)
    rate = options.learning_rate
    # steps as large as AdamW's, so that one learning rate serves both
    equal = Equal(hidden, lr=rate, momentum=options.momentum, adjust_lr_fn="match_rms_adamw")
    return TwoOptimizers(equal, AdamW(rest, **_adaptive(options), fused=True) if rest else None)


def _need_matrices(parts: Parts) -> None:
    if not any(weight.is_hidden_matrix for weight in parts.weights):
        name = parts.options.name
        raise RecipeError(
            f"{name} has no effect: no matrix is trained but the embeddings and the head",
            hint="write optimizer.name: adamw",
            where="optimizer.name",
        )


def _low_rank(parts: Parts) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.low_rank import LowRankAdamW

    _need_matrices(parts)
    options: LowRank = parts.options
    lengths = {"galore": "each", "apollo": "channel", "apollo_mini": "matrix"}
    of_matrices = {
        "rank": 1 if isinstance(options, ApolloMini) else parts.options.rank,
        "scale": parts.options.scale,
        "lengths": lengths[parts.options.name],
        "project_every": options.project_every_steps,
    }
    return LowRankAdamW(
        parts.groups(marked=lambda weight: of_matrices if weight.is_hidden_matrix else {}),
        **_adaptive(options),
        seed=parts.recipe.run.seed,
    )


def _adam_mini(parts: Parts) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.adam_mini import build_adam_mini

    return build_adam_mini(parts.recipe, parts.model, parts.weights)


def _schedule_free(parts: Parts) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.averaged import Averaged

    options: ScheduleFree = parts.options
    averaged: torch.optim.Optimizer = Averaged(
        parts.groups(),
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        foreach=False,  # all at once takes a copy of all weights more
    )
    return averaged


def _badam(parts: Parts) -> torch.optim.Optimizer:
    from tunesmith.training.optimizers.blocks import BlockAdamW

    options: BAdam = parts.options
    inside = [weight for weight in parts.weights if weight.layer is not None]
    if not inside:
        raise RecipeError(
            "badam goes from layer to layer, and the model's layers are not known by their names",
            hint="write optimizer.name: adamw",
            where="optimizer.name",
        )
    for weight in parts.weights:
        weight.tensor.requires_grad_(weight.layer is not None)
    layers: dict[int, list[torch.nn.Parameter]] = {}
    for weight in inside:
        layers.setdefault(int(weight.layer or 0), []).append(weight.tensor)
    return BlockAdamW(
        parts.groups(lambda weight: weight.layer is not None),
        blocks=[layers[number] for number in sorted(layers)],
        switch_every=options.switch_every_steps,
        **_adaptive(options),
    )


BUILDERS: dict[str, Callable[[Parts], torch.optim.Optimizer]] = {
    "adamw": _adamw,
    "adamw_8bit": _adamw_8bit,
    "adamw_paged_8bit": _adamw_paged_8bit,
    "lion": _lion,
    "lion_8bit": _lion_8bit,
    "adafactor": _adafactor,
    "sgd": _sgd,
    "muon": _muon,
    "galore": _low_rank,
    "apollo": _low_rank,
    "apollo_mini": _low_rank,
    "adam_mini": _adam_mini,
    "schedule_free": _schedule_free,
    "badam": _badam,
}
