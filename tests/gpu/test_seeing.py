"""On a GPU models that see learn as they do on a CPU, and answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import pictures, seeing, tiny
from tests.gpu.test_training import losses
from tests.pipelines.test_images import train_images
from tunesmith.models.chat import load_chat_model
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
ALL = ["language", "projector", "tower"]


def train_on(
    device: str, folder: Path, model: Path, rows: Path, tuning: dict[str, Any], **sections: Any
) -> Run:
    folder.mkdir()
    usual = {
        "tuning": tuning,
        "compute": {"device": device, "precision": "fp32", "threads": 1},
        "run": {"steps": 6, "name": device},
    }
    path = tiny.write_recipe(folder / "recipe.json", model, rows, **{**usual, **sections})
    return train(load_recipe(path))


@pytest.mark.parametrize("family", ["Qwen 2.5 VL", "LLaVA"])
@pytest.mark.parametrize("kind", ["lora", "full"])
def test_images_in_conversations_are_learned_as_on_a_cpu(
    tmp_path: Path, family: str, kind: str
) -> None:
    model = seeing.make_seeing_model(tmp_path / "model", family)
    rows = seeing.write_rows(tmp_path / "rows", 4)
    tuning = {"kind": kind, "parts": ALL}
    found = {
        device: losses(train_on(device, tmp_path / device, model, rows, tuning))
        for device in ("cpu", "cuda")
    }
    assert len(found["cuda"]) == 6
    assert found["cuda"] == pytest.approx(found["cpu"], rel=2e-3)


def test_it_comes_to_tell_colours(tmp_path: Path) -> None:
    model = seeing.make_seeing_model(tmp_path / "model", "Qwen 2.5 VL")
    rows = seeing.write_rows(tmp_path / "rows", 4)
    run = train_on(
        "cuda",
        tmp_path / "run",
        model,
        rows,
        {"kind": "full", "parts": ALL},
        run={"steps": 45, "name": "colours"},
    )
    tuned = load_chat_model(run.name, precision="fp32", device="cuda")
    assert [seeing.ask(tuned, colour) for colour in seeing.COLOURS] == list(seeing.COLOURS)


def test_a_classifier_of_images_learns_as_on_a_cpu(tmp_path: Path) -> None:
    model = pictures.make_image_model(tmp_path / "vit")
    rows = pictures.write_images(tmp_path / "images")
    found = {
        device: losses(
            train_images(
                tmp_path, model, rows, compute={"device": device}, run={"name": device, "steps": 6}
            )
        )
        for device in ("cpu", "cuda")
    }
    assert found["cuda"] == pytest.approx(found["cpu"], rel=2e-3)
