"""Tiny image models and images, made on the spot with fixed seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import AutoConfig, AutoModelForImageClassification
from transformers.models.convnext.image_processing_pil_convnext import ConvNextImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

from tests import tiny

SHAPES: dict[str, dict[str, Any]] = {
    "vit": {
        "model_type": "vit",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "patch_size": 8,
    },
    "resnet": {
        "model_type": "resnet",
        "embedding_size": 8,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
    },
    "convnext": {
        "model_type": "convnext",
        "num_stages": 2,
        "hidden_sizes": [8, 16],
        "depths": [1, 1],
    },
}
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 230)}


def make_image_model(folder: Path, shape: str = "vit", *, size: int = 32, **changes: Any) -> Path:
    """Write the folder of an image model with random weights and its processor."""
    options = {**SHAPES[shape], "image_size": size, **changes}
    if shape != "vit":
        del options["image_size"]
    config = AutoConfig.for_model(options.pop("model_type"), **options)
    torch.manual_seed(0)
    AutoModelForImageClassification.from_config(config).save_pretrained(str(folder))
    if shape == "vit":
        processor: Any = ViTImageProcessorPil(size={"height": size, "width": size})
    else:
        processor = ConvNextImageProcessorPil(size={"shortest_edge": size}, crop_pct=1.0)
    processor.save_pretrained(str(folder))
    return folder


def write_images(folder: Path, count: int = 8) -> Path:
    """Write noisy images of three colours, and the rows that name them."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for label, colour in COLOURS.items():
        for number in range(count):
            name = f"{label}{number}.png"
            noise = random.integers(-30, 30, (20 + number, 24, 3))
            pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name)
            rows.append({"image_path": name, "label": label})
    return tiny.write_rows(folder / "rows.jsonl", rows)
