"""On a GPU a training takes about the memory that was estimated."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import tiny
from tunesmith.hardware import GIB
from tunesmith.recipe.load import load_recipe
from tunesmith.training.fit import choose_batching, footprint_of
from tunesmith.training.footprint import CUDA_BYTES, UNCOUNTED
from tunesmith.training.memory import free_gib, product_rate
from tunesmith.training.prepare import prepare_run
from tunesmith.training.train import train

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]
DEVICE = "cuda"
SIZES: dict[str, dict[str, Any]] = {
    "small": {
        "hidden_size": 256,
        "intermediate_size": 768,
        "num_hidden_layers": 4,
        "head_dim": 64,
        "vocab_size": 8192,
    },
    "middle": {
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 8,
        "num_attention_heads": 8,
        "head_dim": 128,
        "vocab_size": 50_000,
    },
}
ROWS = [
    {"instruction": f"question {n}", "input": "", "output": "the quick brown fox " * (10 + n % 30)}
    for n in range(64)
]


@pytest.mark.parametrize("checkpointing", ["off", "on", "offload"])
@pytest.mark.parametrize("tuning", ["lora", "full"])
@pytest.mark.parametrize("size", SIZES)
def test_the_estimate_is_near_what_is_measured(
    tmp_path: Path,
    size: str,
    tuning: str,
    checkpointing: str,
    record_property: Callable[[str, object], None],
) -> None:
    model = tiny.make_model(tmp_path / size, **SIZES[size])
    recipe = load_recipe(
        tiny.write_recipe(
            tmp_path / "r.json",
            model,
            tiny.write_rows(tmp_path / "rows.jsonl", ROWS),
            data={"max_tokens": 256},
            tuning={"kind": tuning},
            optimizer={"batch_size": 64, "learning_rate": 1e-4},
            compute={
                "device": DEVICE,
                "precision": "bf16",
                "threads": 1,
                "gradient_checkpointing": checkpointing,
            },
            run={"steps": 3},
        )
    )
    prepared = prepare_run(recipe)
    batching = choose_batching(prepared, footprint_of(prepared))
    assert batching.checkpointing == checkpointing
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    train(recipe)
    measured = (torch.cuda.max_memory_allocated() - before) / GIB
    estimated = batching.gib - CUDA_BYTES * UNCOUNTED / GIB
    for name, value in (("measured_gib", measured), ("estimated_gib", estimated)):
        record_property(name, round(value, 4))
    record_property("estimated_over_measured", round(estimated / measured, 3))
    assert 0.75 < estimated / measured < 1.5


def test_a_gpu_takes_no_more_than_was_set_aside_before_the_first_tensor(
    record_property: Callable[[str, object], None],
) -> None:
    torch.zeros(1, device=DEVICE)
    torch.mm(*(torch.zeros(64, 64, device=DEVICE, dtype=torch.bfloat16) for _ in range(2)))
    free, whole = torch.cuda.mem_get_info()
    taken = whole - free - torch.cuda.memory_reserved()
    record_property("taken_mib", taken // 2**20)
    assert taken < 2 * CUDA_BYTES


def test_free_memory_and_speed_are_those_of_the_gpu(
    tmp_path: Path, tiny_model: Path, record_property: Callable[[str, object], None]
) -> None:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl", 4)
    recipe = load_recipe(tiny.write_recipe(tmp_path / "r.json", tiny_model, data))
    device = torch.device(DEVICE)
    whole = torch.cuda.get_device_properties(device).total_memory / GIB
    assert 0.5 * whole < free_gib(recipe, device) <= whole
    rate = product_rate(device, "bf16")
    record_property("product_tflops", round(rate / 1e12, 1))
    assert rate > 1e12
