"""A training takes about the memory that was estimated before it began."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import seeing, tiny

TRAIN = """
import json, sys
from pathlib import Path
from tunesmith.recipe.load import load_recipe
from tunesmith.training import fit, train

found, choose, build = {}, fit.choose_batching, train.build_trainer

def noted(*given):
    batching = choose(*given)
    found["estimated"] = batching.gib
    return batching

def forgetting(*given):
    Path("/proc/self/clear_refs").write_text("5")  # pages of the base's file count until then
    return build(*given)

fit.choose_batching, train.build_trainer = noted, forgetting
train.train(load_recipe(Path(sys.argv[1])))
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({**found, "measured": int(peak.split()[1]) / 2**20}))
"""
WRITES = {
    "name": "grpo",
    "rewards": {"kind": "length", "limit": 9},
    "answer_tokens": 12,
    "group_size": 8,
}
NARROW = {
    "shape": {"hidden_size": 256, "intermediate_size": 512, "num_key_value_heads": 12},
    "run": {"steps": 2},
}
"""A model whose keys and values take more than its weights."""
TWICE = {"gradient_checkpointing": "on"}
CASES: dict[str, dict[str, Any]] = {
    "lora": {},
    "lora, twice": {"compute": TWICE},
    "full": {"tuning": {"kind": "full"}},
    "full, twice": {"tuning": {"kind": "full"}, "compute": TWICE},
    "4 bits": {"model": {"quantize": {"kind": "nf4"}}},
    "3 bits": {"model": {"quantize": {"kind": "hqq", "bits": 3}}},
    "4 bits, twice": {"model": {"quantize": {"kind": "nf4"}}, "compute": TWICE},
    "many rollouts": {"method": WRITES, **NARROW},
    "many rollouts, full": {"method": WRITES, **NARROW, "tuning": {"kind": "full"}},
    "few rollouts": {"method": {**WRITES, "rollout_rows": 4}, **NARROW},
}

WIDE_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [8, 4, 4]}

pytestmark = pytest.mark.proof


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux keeps it")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_estimate_is_near_the_peak(tmp_path: Path, case: dict[str, Any]) -> None:
    if "model" in case:
        pytest.importorskip("bitsandbytes")
    folder = tiny.make_model(
        tmp_path / "model",
        "qwen3",
        **{"hidden_size": 768, "intermediate_size": 2304, **case.get("shape", {})},
        num_hidden_layers=12,
        num_attention_heads=12,
        head_dim=64,
        max_position_embeddings=1024,
    )
    words = "the quick brown fox jumps over the lazy dog " * 30
    rows = [
        {"instruction": f"question {n} {words}", "input": "", "output": words} for n in range(16)
    ]
    data = tiny.write_rows(tmp_path / "rows.jsonl", rows)
    given = {
        **{name: options for name, options in case.items() if name != "shape"},
        "data": {"max_tokens": 512},
        "compute": {"precision": "fp32", "threads": 1, **case.get("compute", {})},
        "optimizer": {"learning_rate": 1e-4, "batch_size": 4},
        "run": {"name": "of-memory", "steps": 3, **case.get("run", {})},
    }
    recipe = tiny.write_recipe(tmp_path / "r.json", folder, data, **given)
    found = measure(recipe)
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.2)


def measure(recipe: Path) -> dict[str, float]:
    """Train in a process of its own, whose peak is read."""
    said = subprocess.run(
        [sys.executable, "-c", TRAIN, str(recipe)], capture_output=True, text=True, check=True
    )
    found: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux keeps it")
@pytest.mark.parametrize("family", ["Qwen 2.5 VL", "LLaVA"])
def test_the_estimate_knows_a_tower_that_learns(tmp_path: Path, family: str) -> None:
    side, patch = 224, 14 if family == "LLaVA" else 8
    qwen = {"size": {"shortest_edge": 64, "longest_edge": side * side}, "patch_size": patch}
    clip = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    wide = {"hidden_size": 512, "patch_size": patch}
    sized = {"depth": 12, "out_hidden_size": 128, "window_size": 64, "num_heads": 8}
    layers = {"num_hidden_layers": 12, "image_size": side, "num_attention_heads": 8}
    folder = seeing.make_seeing_model(
        tmp_path / "model",
        family,
        vision={**wide, **(layers if family == "LLaVA" else sized), "intermediate_size": 2048},
        picture=clip if family == "LLaVA" else qwen,
        hidden_size=128,
        head_dim=32,
        max_position_embeddings=2048,
        **({} if family == "LLaVA" else {"rope_parameters": WIDE_ROPE}),
    )
    if family == "LLaVA":
        tiny.change_json(folder / "processor_config.json", patch_size=patch)
    for number in range(8):
        image = seeing.make_picture("red", number).resize((side, side))
        image.save(tmp_path / f"{number}.png")
    rows = [
        {"instruction": "<image>which?", "output": "red", "images": [f"{number}.png"]}
        for number in range(8)
    ]
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        folder,
        tiny.write_rows(tmp_path / "rows.jsonl", rows),
        data={"max_tokens": 1024},
        tuning={"kind": "full", "parts": ["language", "projector", "tower"]},
        compute={"precision": "fp32", "threads": 1, "gradient_checkpointing": "off"},
        optimizer={"learning_rate": 1e-4, "batch_size": 4},
        run={"name": "of-memory", "steps": 2},
    )
    found = measure(recipe)
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15)
