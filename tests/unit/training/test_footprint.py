"""What a training holds is found without a weight."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.inference.batching.weights import take_weights
from tunesmith.models.few_passes import use_few_passes
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_config, load_model
from tunesmith.models.row_attention import as_mask, one_after_another
from tunesmith.models.tuning import apply_tuning, num_trainable
from tunesmith.recipe.load import load_recipe
from tunesmith.training import footprint as footprint_module
from tunesmith.training.footprint import Footprint, measure_footprint
from tunesmith.training.online.memory import LOGIT_BYTES

LONGEST = 70


def footprint(folder: Path, model: Path, **sections: Any) -> Footprint:
    data = tiny.write_pairs(folder / "pairs.jsonl", 4)
    recipe = load_recipe(tiny.write_recipe(folder / "r.json", model, data, **sections))
    return measure_footprint(recipe, model, LONGEST)


def really_saved(model: Any, rows: int) -> int:
    """Count what a forward pass over real numbers keeps."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, torch.Tensor] = {}

    def pack(given: torch.Tensor) -> torch.Tensor:
        if given.untyped_storage().data_ptr() not in weights:
            saved[given.untyped_storage().data_ptr()] = given
        return given

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda given: given):
        kept = model(
            torch.zeros(1, rows * LONGEST, dtype=torch.long),
            position_ids=torch.arange(LONGEST).repeat(rows)[None],
            attention_mask=as_mask(one_after_another([LONGEST] * rows)),
            use_cache=False,
            logits_to_keep=1,
        )
    assert kept.logits.shape[1] == 1
    return sum(tensor.untyped_storage().nbytes() for tensor in saved.values())


@pytest.mark.parametrize("kind", ["lora", "full", "freeze"])
@pytest.mark.parametrize("shape", ["qwen3", "gemma2", "gpt2"])
def test_what_is_kept_is_what_a_real_pass_keeps(tmp_path: Path, shape: str, kind: str) -> None:
    folder = tiny.make_model(tmp_path / shape, shape)
    compute = {"precision": "fp32", "threads": 1}
    found = footprint(tmp_path, folder, tuning={"kind": kind}, compute=compute)
    recipe = load_recipe(tmp_path / "r.json")
    loaded = load_model(folder, dtype=torch.float32, device=torch.device("cpu"))
    model = apply_tuning(loaded, recipe.tuning).train()
    use_few_passes(model)
    assert found.num_weights == sum(p.numel() for p in model.parameters())
    assert found.num_trained == num_trainable(model)
    assert find_layout(model).is_flat
    for rows in (1, 3):
        estimated = found.kept(False).fixed + rows * LONGEST * found.kept(False).per_token
        assert estimated == pytest.approx(really_saved(model, rows), rel=0.05)


def test_computing_activations_twice_keeps_less(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "deep", num_hidden_layers=8)
    found = footprint(tmp_path, folder)
    assert found.kept(True).per_token < 0.4 * found.kept(False).per_token
    assert found.gib(1000, checkpointing=True) < found.gib(1000, checkpointing=False)


def test_sixteen_bits_keep_less_than_thirty_two(tmp_path: Path, tiny_model: Path) -> None:
    exact, half, other, pure = (
        footprint(tmp_path, tiny_model, compute={"precision": precision, "threads": 1})
        for precision in ("fp32", "bf16", "fp16", "pure_bf16")
    )
    assert other.kept(False).per_token == half.kept(False).per_token
    assert other.held == pytest.approx(half.held, rel=0.02)
    assert half.kept(False).per_token < 0.8 * exact.kept(False).per_token
    assert pure.kept(False).per_token <= half.kept(False).per_token


def test_a_model_that_asks_for_numbers_is_estimated_by_its_sizes(tmp_path: Path) -> None:
    folder = tiny.make_model(tmp_path / "mixture", "mixture")
    found = footprint(tmp_path, folder, tuning={"kind": "full"})
    assert found.kept(False).per_token > found.kept(True).per_token > 0


def test_another_way_is_tried_only_when_asked_for(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    saved_bytes = footprint_module._saved_bytes

    def counting(*given: Any) -> int:
        passes.append(1)
        return saved_bytes(*given)

    monkeypatch.setattr(footprint_module, "_saved_bytes", counting)
    found = footprint(tmp_path, tiny_model)
    found.gib(100, checkpointing=False)
    found.gib(1000, checkpointing=False)
    assert len(passes) == 2
    found.gib(100, checkpointing=True)
    assert len(passes) == 4


def test_a_gpu_keeps_no_wide_copy_of_what_a_norm_is_given(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its kernels take 16 bits; the processor widens them first."""
    compute = {"precision": "bf16", "threads": 1}
    here = footprint(tmp_path, tiny_model, compute=compute)
    monkeypatch.setattr(footprint_module, "choose_device", lambda _: torch.device("cuda"))
    there = footprint(tmp_path, tiny_model, compute=compute)
    config = load_config(tiny_model)
    wide = 4 * config.hidden_size * 2 * config.num_hidden_layers  # two norms a layer, in fp32
    assert here.kept(False).per_token - there.kept(False).per_token >= wide
    assert here.kept(True).per_token >= there.kept(True).per_token


@pytest.mark.parametrize("shape", ["qwen3", "llama"])
def test_what_answers_hold_is_what_the_engine_keeps_of_a_text(tmp_path: Path, shape: str) -> None:
    folder = tiny.make_model(tmp_path / "model", shape)
    method = {"name": "grpo", "rewards": "json", "group_size": 4, "rollout_rows": 10}
    found = footprint(tmp_path, folder, method=method, optimizer={"batch_size": 2}).rollout
    weights = take_weights(load_model(folder, dtype=torch.float32, device=torch.device("cpu")))
    assert found.rows == 8  # no more are asked for
    assert found.per_row == LONGEST * weights.token_bytes + 400 * LOGIT_BYTES
    assert footprint(tmp_path, folder).rollout.bytes == 0
