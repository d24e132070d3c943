"""Tiny models learn from random weights to tell real photographs of ten signs apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests import pictures, tiny
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.recipe.load import load_recipe
from tunesmith.training.train import train

pytestmark = pytest.mark.proof
SIGNS = Path("data") / "ardamavi+Sign-Language-Digits-Dataset" / "Dataset"
SHAPES: dict[str, tuple[dict[str, Any], float, float, float]] = {
    "resnet": (
        {
            "embedding_size": 16,
            "hidden_sizes": [16, 32, 64],
            "depths": [1, 1, 1],
            "layer_type": "basic",
        },
        3e-3,
        20,
        0.85,
    ),
    "vit": (
        {
            "hidden_size": 64,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "intermediate_size": 128,
            "patch_size": 8,
        },
        1e-3,
        40,
        0.3,
    ),
}
"""Shape, learning rate, epochs, and the accuracy that it must reach on held-out images."""


@pytest.mark.parametrize("shape", SHAPES)
def test_signs_of_ten_digits_are_told_apart(tmp_path: Path, shared: Path, shape: str) -> None:
    changes, rate, epochs, enough = SHAPES[shape]
    images = sorted((shared / SIGNS).glob("*/*.JPG"))
    assert len(images) == 400
    rows = [{"image_path": str(path), "label": path.parent.name} for path in images]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    model = pictures.make_image_model(tmp_path / "model", shape, size=48, **changes)
    recipe = {
        "model": {"name": str(model)},
        "data": {"train": [str(data)], "validation_share": 0.2},
        "method": {"name": "classify"},
        "tuning": {"kind": "full"},
        "optimizer": {"learning_rate": rate, "batch_size": 16},
        "compute": {"precision": "fp32", "threads": 1},
        "run": {"name": shape, "epochs": epochs, "seed": 1},
    }
    (tmp_path / "recipe.json").write_text(json.dumps(recipe), "utf-8")
    run = train(load_recipe(tmp_path / "recipe.json"))
    scores = evaluate(run.path)
    print(f"{shape}: accuracy {scores.tuned.accuracy:.3f}, macro-F1 {scores.tuned.macro_f1:.3f}")
    assert scores.num_rows == 80
    assert scores.classes is not None
    assert scores.classes.labels == [str(digit) for digit in range(10)]
    assert (scores.tuned.accuracy or 0.0) >= enough
    assert (scores.tuned.macro_f1 or 0.0) >= enough - 0.05
