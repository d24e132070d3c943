"""Optimizers around small models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from tunesmith.recipe.load import build_recipe
from tunesmith.recipe.options import Recipe
from tunesmith.training.optimizers import build_optimizer

if TYPE_CHECKING:
    import torch
    from torch import nn

RATE, DECAY = 1e-2, 0.1


def recipe_of(name: str = "adamw", /, tuning: str = "full", **options: Any) -> Recipe:
    raw = {
        "model": {"name": "m"},
        "data": {"train": ["rows.jsonl"]},
        "tuning": {"kind": tuning},
        "optimizer": {"name": name, "learning_rate": RATE, "weight_decay": DECAY, **options},
    }
    return build_recipe(yaml.safe_load(yaml.safe_dump(raw)))


def build(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    decaying = {name for name, _ in model.named_parameters() if "norm" not in name}
    return build_optimizer(recipe, model, decaying=decaying)
