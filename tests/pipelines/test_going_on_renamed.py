"""A run goes on also where files name its weights otherwise than the model does."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import seeing, tiny
from tests.golden import seen_pairs
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.checkpoints import list_checkpoints, step_of
from tunesmith.training.train import resume, train

ALL: dict[str, Any] = {"kind": "full", "parts": ["language", "projector", "tower"]}
PROOF = pytest.mark.proof
MODELS: list[Any] = [
    "Qwen 2 VL",
    *(
        pytest.param(name, marks=PROOF)
        for name in ("LLaVA", "Qwen 3 VL", "Gemma 3", "mixture", "routed", "balanced")
    ),
]


@pytest.mark.parametrize("name", MODELS)
def test_full_tuning_goes_on_to_the_same_bits(tmp_path: Path, name: str) -> None:
    sees = name in seeing.FAMILIES
    folder = tmp_path / "model"
    model = (seeing.make_seeing_model if sees else tiny.make_model)(folder, name)
    data = (
        seeing.write_rows(tmp_path / "rows", 2)
        if sees
        else tiny.write_pairs(tmp_path / "pairs.jsonl", 8)
    )
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        model,
        data,
        tuning=ALL if sees else {"kind": "full"},
        run={"steps": 4, "save_every_steps": 2},
    )
    assert_goes_on(train(load_recipe(recipe)))


@pytest.mark.proof
@pytest.mark.parametrize("name", ["Qwen 2 VL", "Gemma 3"])
def test_a_reward_model_that_sees_goes_on_too(tmp_path: Path, name: str) -> None:
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        seeing.make_seeing_model(tmp_path / "model", name),
        seen_pairs.write_pairs(tmp_path),
        method={"name": "reward"},
        data={"max_tokens": 256},
        tuning=ALL,
        run={"steps": 4, "save_every_steps": 2},
    )
    tiny.change_json(recipe, evaluate=None)  # it answers nothing
    assert_goes_on(train(load_recipe(recipe)))


def assert_goes_on(run: Run) -> None:
    """Take the end away from a run, and let it go on from its middle."""
    expected = load_file(run.model / "model.safetensors")
    for checkpoint in list_checkpoints(run.checkpoints):
        if step_of(checkpoint) > 2:
            shutil.rmtree(checkpoint)
    shutil.rmtree(run.model)
    resume(Run(run.path))
    found = load_file(run.model / "model.safetensors")
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[weight], value) for weight, value in expected.items())
