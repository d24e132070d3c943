"""Tiny models learn from random weights to tell real photographs of ten signs apart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests import pictures, seeing, tiny
from tunesmith.evaluation.evaluate import evaluate
from tunesmith.methods.averages import macro_f1
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


SIDE, PATCH, WIDTH, COPIES = 48, 6, 64, 14
MODEL_THAT_SEES: dict[str, Any] = {
    "vision": {
        "depth": 2,
        "hidden_size": WIDTH,
        "out_hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_heads": 4,
        "patch_size": PATCH,
        "window_size": SIDE,
        "fullatt_block_indexes": [0, 1],
        "initializer_range": 0.1,
    },
    "picture": {
        "patch_size": PATCH,
        "size": {"shortest_edge": SIDE * SIDE, "longest_edge": SIDE * SIDE},
    },
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "rope_parameters": {**seeing.QWEN_ROPE, "mrope_section": [4, 2, 2]},
    "initializer_range": 0.1,
}


def write_signs(folder: Path, shared: Path) -> tuple[Path, Path]:
    """Write rows that ask for the digit: to learn from, each image moved too, and to measure on."""
    random = np.random.default_rng(1)
    images = sorted((shared / SIGNS).glob("*/*.JPG"))
    held_out = set(random.permutation(len(images))[:80].tolist())
    learned, measured = [], []
    for number, path in enumerate(images):
        row = {"instruction": "<image>which digit?", "output": path.parent.name}
        if number in held_out:
            measured.append({**row, "images": [str(path)]})
            continue
        learned.append({**row, "images": [str(path)]})
        whole = Image.open(path).convert("RGB")
        for copy in range(COPIES):
            shift = tuple(random.integers(-7, 8, 2).tolist())
            moved = whole.rotate(random.uniform(-8, 8), translate=shift)
            moved = ImageOps.mirror(moved) if random.random() < 0.5 else moved
            name = f"{number}-{copy}.png"
            moved.resize((SIDE, SIDE)).save(folder / name)
            learned.append({**row, "images": [name]})
    return (
        tiny.write_rows(folder / "rows.jsonl", learned),
        tiny.write_rows(folder / "held-out.jsonl", measured),
    )


def test_a_model_that_sees_says_which_digit_a_sign_is(tmp_path: Path, shared: Path) -> None:
    data, held_out = write_signs(tmp_path, shared)
    model = seeing.make_seeing_model(tmp_path / "model", "Qwen 2.5 VL", **MODEL_THAT_SEES)
    recipe = tiny.write_recipe(
        tmp_path / "recipe.json",
        model,
        data,
        data={"max_tokens": 128, "validation": [str(held_out)]},
        tuning={"kind": "full", "parts": ["language", "projector", "tower"]},
        optimizer={"learning_rate": 1e-3, "batch_size": 16, "scheduler": "linear"},
        run={"steps": 2700},
    )
    run = train(load_recipe(recipe))
    scores = evaluate(run.path, max_tokens=4)
    found = [(pair.expected, pair.tuned.strip()) for pair in scores.answers]
    assert len(found) == 80
    labels = [str(digit) for digit in range(10)]
    right = [sum(e == a == label for e, a in found) for label in labels]
    named = [sum(a == label for _, a in found) for label in labels]
    own = [sum(e == label for e, _ in found) for label in labels]
    f1 = macro_f1(right, named, own)
    print(f"qwen2_5_vl: accuracy {sum(right) / 80:.3f}, macro-F1 {f1:.3f}")
    assert scores.tuned.exact_match == sum(right) / 80
    assert (scores.tuned.exact_match or 0.0) >= 0.7
    assert f1 >= 0.65
    assert scores.base is not None
    assert (scores.base.exact_match or 0.0) <= 0.15, "chance is 0.1"
