"""Stretched positions are those that transformers computes from a config.json that says so."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from transformers import AutoModelForCausalLM

from tests import tiny
from tunesmith.errors import RecipeError
from tunesmith.models.load import load_config, load_model
from tunesmith.models.rope import settle_rope
from tunesmith.recipe.rope import Linear, RopeScaling, Yarn

IDS = torch.arange(3, 203)[None]
KINDS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "linear": ({"factor": 4}, {"rope_type": "linear", "factor": 4.0}),
    "dynamic": ({"factor": 4}, {"rope_type": "dynamic", "factor": 4.0}),
    "yarn": (
        {"factor": 2, "original_length": 32},
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32},
    ),
    "llama3": (
        {"high_frequency_factor": 3},
        {
            "rope_type": "llama3",
            "factor": 4.0,
            "original_max_position_embeddings": 64,
            "low_freq_factor": 1.0,
            "high_freq_factor": 3.0,
        },
    ),
}
LENGTHS = {"linear": 256, "dynamic": 64, "yarn": 64, "llama3": 256}


def given(kind: str, **options: Any) -> RopeScaling:
    found: RopeScaling = TypeAdapter(RopeScaling).validate_python({"kind": kind, **options})
    return found


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = model.eval()(input_ids=IDS).logits
    return out


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", ["llama", "qwen3", "gemma3"])
def test_positions_are_those_of_a_config_that_says_so(
    tmp_path: Path, shape: str, kind: str
) -> None:
    folder = tiny.make_model(tmp_path / "m", shape, max_position_embeddings=64)
    options, spelled = KINDS[kind]
    rope = settle_rope(load_config(folder), given(kind, **options), 200)
    how = {"dtype": torch.float32, "device": torch.device("cpu")}
    ours = load_model(folder, rope=rope, **how)
    assert ours.config.max_position_embeddings == LENGTHS[kind]
    theirs = Path(shutil.copytree(folder, tmp_path / "theirs"))
    config = json.loads((theirs / "config.json").read_text())
    turns = config["rope_parameters"]
    turns.get("full_attention", turns).update(spelled)
    tiny.change_json(
        theirs / "config.json", rope_parameters=turns, max_position_embeddings=LENGTHS[kind]
    )
    plain = AutoModelForCausalLM.from_pretrained(str(theirs), dtype=torch.float32)
    assert torch.equal(logits(ours), logits(plain))
    assert not torch.equal(logits(ours), logits(load_model(folder, **how)))


def test_linear_divides_every_frequency(tiny_model: Path) -> None:
    how = {"dtype": torch.float32, "device": torch.device("cpu")}
    rope = settle_rope(load_config(tiny_model), Linear(), 700)
    assert (rope.factor, rope.original_length) == (3, 256)
    plain: Any = load_model(tiny_model, **how)
    ours: Any = load_model(tiny_model, rope=rope, **how)
    assert torch.allclose(ours.model.rotary_emb.inv_freq * 3, plain.model.rotary_emb.inv_freq)


@pytest.mark.parametrize(
    ("shape", "changes", "rope", "said"),
    [
        ("gpt2", {}, Yarn(factor=2), "no rotary"),
        ("mamba", {}, Yarn(factor=2), "no rotary"),
        ("llama", {}, Yarn(), "fit: the model takes 256"),
        (
            "llama",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            Yarn(factor=2),
            "already .linear",
        ),
    ],
)
def test_what_cannot_be_stretched_is_refused(
    tmp_path: Path, shape: str, changes: Any, rope: RopeScaling, said: str
) -> None:
    folder = tiny.make_model(tmp_path / "m", shape, **changes)
    with pytest.raises(RecipeError, match=said):
        settle_rope(load_config(folder), rope, 200)
