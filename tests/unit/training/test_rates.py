"""Weights are grouped by what they are, and each group learns at its own rate."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tests import tiny
from tests.unit.training.building import DECAY, RATE, build, recipe_of
from tunesmith.models.load import load_model
from tunesmith.models.tuning import apply_tuning
from tunesmith.recipe.load import build_recipe


@pytest.fixture
def model(tiny_model: Path) -> nn.Module:
    return load_model(tiny_model, dtype=torch.float32, device=torch.device("cpu"))


def test_groups_are_as_the_loop_underneath_makes_them(model: nn.Module) -> None:
    optimizer = build(recipe_of(), model)
    decay, free = optimizer.param_groups
    assert (decay["weight_decay"], free["weight_decay"]) == (DECAY, 0.0)
    assert sum(len(g["params"]) for g in optimizer.param_groups) == len([*model.parameters()])
    assert all(weight.dim() == 1 for weight in free["params"])


def rates(optimizer: torch.optim.Optimizer, model: nn.Module) -> dict[str, float]:
    names = {weight: name for name, weight in model.named_parameters()}
    return {names[w]: g["lr"] for g in optimizer.param_groups for w in g["params"]}


@pytest.mark.parametrize("name", ["adamw", "muon", "galore", "adam_mini", "schedule_free"])
def test_the_rate_of_a_layer_falls_with_the_layers_above_it(tmp_path: Path, name: str) -> None:
    folder = tiny.make_model(tmp_path / "deep", "untied", num_hidden_layers=3)
    model = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    found = rates(build(recipe_of(name, layer_decay=0.5), model), model)
    assert len(found) == len([*model.parameters()])
    shares = {
        "model.embed_tokens.": 0.125,
        "model.layers.0.": 0.25,
        "model.layers.1.": 0.5,
        "model.layers.2.": 1.0,
        "model.norm.": 1.0,
        "lm_head.": 1.0,
    }
    for weight, rate in found.items():
        (share,) = (share for start, share in shares.items() if weight.startswith(start))
        assert rate == pytest.approx(RATE * share), weight


def test_in_lora_plus_the_matrices_that_begin_at_zero_learn_faster(model: nn.Module) -> None:
    recipe = build_recipe(
        {
            "model": {"name": "m"},
            "data": {"train": ["rows.jsonl"]},
            "tuning": {"lora_plus_ratio": 16},
            "optimizer": {"learning_rate": RATE},
        }
    )
    adapted = apply_tuning(model, recipe.tuning)  # type: ignore[arg-type]
    found = rates(build(recipe, adapted), adapted)
    assert {rate for name, rate in found.items() if "lora_A" in name} == {RATE}
    assert {rate for name, rate in found.items() if "lora_B" in name} == {16 * RATE}
    assert all("lora_" in name for name in found)
