"""How a model takes its rows is found out by trying."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model
from tunesmith.models.tuning import add_lora
from tunesmith.recipe.tuning import LoRA

CPU = torch.device("cpu")
WHY = {
    "balanced": "",
    "masked": "only its mask",
    "mamba": "cannot be replaced",
    "bloom": "cannot be replaced",
    "linear": "linear_attention",
}


@pytest.mark.parametrize("shape", tiny.FAMILIES)
def test_the_usual_families_take_rows_end_to_end(tmp_path: Path, shape: str) -> None:
    model = load_model(tiny.make_model(tmp_path / shape, shape), dtype=torch.float32, device=CPU)
    state, training = torch.get_rng_state(), model.training
    layout = find_layout(model)
    assert layout.is_flat
    assert layout.head is not None
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training is training
    assert find_layout(model) is layout


@pytest.mark.parametrize("shape", tiny.PADDED)
def test_others_are_padded_and_the_reason_is_known(tmp_path: Path, shape: str) -> None:
    model = load_model(tiny.make_model(tmp_path / shape, shape), dtype=torch.float32, device=CPU)
    layout = find_layout(model)
    assert not layout.is_flat
    assert WHY[shape] in layout.padded_because


def test_a_layer_that_looks_into_the_row_before_is_noticed(tmp_path: Path) -> None:
    class Leaking(torch.nn.Linear):
        def forward(self, given: torch.Tensor) -> torch.Tensor:
            return super().forward(given + given.roll(1, dims=1))

    model = load_model(tiny.make_model(tmp_path / "model"), dtype=torch.float32, device=CPU)
    old = model.model.layers[0].self_attn.v_proj  # type: ignore[union-attr]
    model.model.layers[0].self_attn.v_proj = Leaking(  # type: ignore[union-attr]
        old.in_features, old.out_features, bias=False
    )
    assert "from one row to the next" in find_layout(model).padded_because


def test_a_head_that_does_more_than_we_know_is_left_to_the_model(tmp_path: Path) -> None:
    model = load_model(tiny.make_model(tmp_path / "model"), dtype=torch.float32, device=CPU)
    forward = model.forward

    def shifted(*given: object, **options: object) -> object:
        found = forward(*given, **options)
        found.logits = found.logits + 1.0
        return found

    model.forward = shifted  # type: ignore[method-assign]
    assert find_layout(model).head is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_changes_nothing_in_how_rows_lie(tmp_path: Path, dtype: torch.dtype) -> None:
    model = load_model(tiny.make_model(tmp_path / "model"), dtype=dtype, device=CPU)
    layout = find_layout(add_lora(model, LoRA(rank=2)))
    assert layout.is_flat
    assert layout.head is not None


@pytest.mark.parametrize("shape", ["qwen3", "gemma2"])
def test_a_model_that_was_tried_generates_and_saves_as_before(tmp_path: Path, shape: str) -> None:
    folder = tiny.make_model(tmp_path / shape, shape)
    before, after = (load_model(folder, dtype=torch.float32, device=CPU).eval() for _ in range(2))
    find_layout(after)
    ids = torch.tensor([[0, 0, 5, 6, 7, 8, 9, 10, 11, 12], [3, 4, 5, 6, 7, 8, 9, 10, 11, 12]])
    mask = torch.tensor([[0, 0] + [1] * 8, [1] * 10])
    said = [
        model.generate(ids, attention_mask=mask, max_new_tokens=8, do_sample=False)  # type: ignore[operator]
        for model in (before, after)
    ]
    assert torch.equal(*said)
    after.save_pretrained(tmp_path / "saved")
    assert "rows_" not in (tmp_path / "saved" / "config.json").read_text("utf-8")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    assert again.config._attn_implementation in ("sdpa", "eager")
