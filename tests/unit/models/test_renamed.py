"""Weights that lie in a checkpoint by other names come back to the bit."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.models.renamed import restore_renamed


def test_what_learns_in_fp32_beside_frozen_bf16_comes_back_to_the_bit(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "model", "mixture")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.model.embed_tokens.to(torch.bfloat16)
    assert model.dtype == torch.bfloat16  # as transformers says of the first of its weights
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    model.save_pretrained(tmp_path / "checkpoint")
    for weight in model.parameters():
        torch.nn.init.zeros_(weight)
    assert restore_renamed(model, tmp_path / "checkpoint")
    after = model.state_dict()
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert {name: weight.dtype for name, weight in after.items()} == {
        name: weight.dtype for name, weight in before.items()
    }
