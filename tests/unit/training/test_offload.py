"""What a forward pass keeps may lie elsewhere meanwhile; gradients stay the same to the bit."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.models.load import load_model
from tunesmith.training import offload

LAYERS = 4


def gradients(model: Any, *, moved: bool) -> list[torch.Tensor]:
    model.zero_grad()
    ids = torch.arange(2, 26).view(2, 12)
    with offload.kept_in_main_memory(model) if moved else nullcontext():
        loss = model(input_ids=ids, labels=ids, use_cache=False).loss
    loss.backward()
    return [weight.grad.clone() for weight in model.parameters()]


@pytest.mark.parametrize("twice", [False, True])
def test_gradients_are_the_same_and_no_weight_is_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, twice: bool
) -> None:
    folder = tiny.make_model(tmp_path / "deep", num_hidden_layers=LAYERS)
    model: Any = load_model(folder, dtype=torch.float32, device=torch.device("cpu")).train()
    if twice:
        model.activation_checkpointing_enable({"use_reentrant": False})
    expected = gradients(model, moved=False)
    monkeypatch.setattr(offload, "SMALLEST", 2 * 12 * model.config.hidden_size * 4)
    shapes: list[torch.Size] = []
    empty = torch.empty

    def counting(*size: Any, **options: Any) -> torch.Tensor:
        if "pin_memory" in options:
            shapes.append(torch.Size(size[0]))
        return empty(*size, **options)

    monkeypatch.setattr(torch, "empty", counting)
    found = gradients(model, moved=True)
    assert all(map(torch.equal, expected, found))
    inputs = [shape for shape in shapes if shape == (2, 12, model.config.hidden_size)]
    assert len(inputs) >= LAYERS
    assert not {weight.shape for weight in model.parameters() if weight.dim() > 1} & {*shapes}
    if twice:  # what stands outside the layers is kept too: the logits and what they are made of
        assert len(shapes) <= LAYERS + 8
