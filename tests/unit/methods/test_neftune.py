"""Noise on the embeddings is as strong as the paper says, however rows are joined."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.neftune import activate_neftune

from tests import seeing, tiny
from tunesmith.data.prepare import prepare
from tunesmith.methods import build_method
from tunesmith.methods.batches import join, lay_end_to_end, pad
from tunesmith.methods.classify import learn_of
from tunesmith.methods.method import Joining
from tunesmith.methods.neftune import noise_on_embeddings, row_lengths
from tunesmith.methods.next_token import next_token_loss
from tunesmith.models.load import load_model
from tunesmith.models.reader import find_reader
from tunesmith.models.seeing import let_see
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.data import Data
from tunesmith.recipe.method import SFT
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
    embeddings: Any = model.get_input_embeddings()  # type: ignore[operator]
    embedded = embeddings(batch["input_ids"])
    with noise_on_embeddings(model, batch, ALPHA):
        noise = embeddings(batch["input_ids"]) - embedded
    assert torch.equal(embeddings(batch["input_ids"]), embedded)
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


@pytest.mark.parametrize("family", ["Qwen 2 VL", pytest.param("LLaVA", marks=pytest.mark.proof)])
def test_noise_beside_images_is_that_of_transformers(tmp_path: Path, family: str) -> None:
    folder = seeing.make_seeing_model(tmp_path / "model", family)
    reader = find_reader(folder)
    assert reader.senses is not None
    method = build_method(SFT(neftune_alpha=ALPHA))
    data = Data(train=(str(seeing.write_rows(tmp_path / "rows", 1)),))
    learn = learn_of(method, reader)
    row = prepare(data, learn, reader.tokenizer, reader.template, seed=0).train[0]
    mine = load_model(folder, dtype=torch.float32, device=torch.device("cpu")).train()
    theirs: Any = copy.deepcopy(mine)
    let_see(mine, reader.senses)
    shown = row["shown"].open()
    given = {
        **reader.senses.numbers([shown]),
        "input_ids": torch.tensor([row["input_ids"]]),
        "labels": torch.tensor([row["labels"]]),
    }
    if family.startswith("Qwen"):
        given["mm_token_type_ids"] = (given["input_ids"] == next(iter(reader.senses.ids))).long()
    plain = theirs(**given).loss.item()
    activate_neftune(theirs, ALPHA)
    torch.manual_seed(5)
    expected = theirs(**given).loss.item()
    torch.manual_seed(5)
    summed = method.loss(mine, method.collate([row], Joining(flat=False)))
    assert summed.total.item() / summed.count == pytest.approx(expected, rel=1e-5)
    assert abs(expected - plain) > 1e-4
