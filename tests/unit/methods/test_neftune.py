"""Noise on the embeddings is as strong as the paper says, however rows are joined."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests import tiny
from tunesmith.methods.batches import join, lay_end_to_end, pad
from tunesmith.methods.method import Joining
from tunesmith.methods.neftune import noisy_embeddings, row_lengths
from tunesmith.methods.next_token import next_token_loss
from tunesmith.models.load import load_model
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.tuning import LoRA

ALPHA, WIDTH = 8.0, 32
ROWS = [{"input_ids": [5] * size, "labels": [5] * size} for size in (400, 25, 100)]


@pytest.fixture
def model(tmp_path: Path) -> torch.nn.Module:
    folder = tiny.make_model(tmp_path / "model")
    loaded = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    return add_lora(loaded, LoRA(rank=2)).train()


def test_each_token_knows_the_length_of_its_row() -> None:
    small = [{"input_ids": [1] * size, "labels": [1] * size} for size in (3, 1)]
    assert row_lengths(lay_end_to_end(small)).tolist() == [[3, 3, 3, 1]]
    assert row_lengths(pad(small))[:, :3].tolist() == [[3, 3, 3], [1, 1, 1]]


@pytest.mark.parametrize("flat", [True, False])
def test_the_noise_of_a_row_depends_on_its_own_length(model: torch.nn.Module, flat: bool) -> None:
    torch.manual_seed(0)
    batch = join(ROWS, Joining(flat=flat))
    embedded = model.get_input_embeddings()(batch["input_ids"])  # type: ignore[operator]
    noise = noisy_embeddings(model, batch, ALPHA) - embedded
    for row, start in zip(range(3), (0, 400, 425), strict=True):
        size = len(ROWS[row]["input_ids"])
        own = noise[0, start : start + size] if flat else noise[row, :size]
        limit = ALPHA / (size * WIDTH) ** 0.5
        assert own.abs().max() <= limit * 1.001
        assert own.abs().max() > limit * 0.98
        assert own.mean().abs() < limit * 0.1


def test_there_is_noise_in_training_only(model: torch.nn.Module) -> None:
    batch = join(ROWS, Joining(flat=True))
    plain = next_token_loss(model, batch).total.item()
    assert next_token_loss(model, batch, noise=ALPHA).total.item() != plain
    model.eval()
    assert next_token_loss(model, batch, noise=ALPHA).total.item() == pytest.approx(plain, rel=1e-6)
