"""Configurations are spelled for readers old and new, and mean the same to both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig

from tunesmith.export.layout import add_older_names, spell_both_ways

LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 400,
}


def reread(config: dict[str, Any], folder: Path) -> Any:
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return AutoConfig.from_pretrained(folder)


def written(kind: str, folder: Path, **fields: Any) -> tuple[Any, dict[str, Any]]:
    """Return a configuration and what transformers writes of it."""
    config = AutoConfig.for_model(kind, **{**SMALL, **fields})
    config.save_pretrained(folder)
    return config, json.loads((folder / "config.json").read_text("utf-8"))


def test_plain_rope_is_spelled_by_its_base() -> None:
    spelled = spell_both_ways({"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}})
    assert spelled == {
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "rope_theta": 1e6,
        "rope_scaling": None,
    }


def test_scaled_rope_keeps_all_of_its_scaling() -> None:
    spelled = spell_both_ways({"rope_parameters": LLAMA3})
    assert spelled["rope_theta"] == 500000.0
    assert spelled["rope_scaling"] == {k: v for k, v in LLAMA3.items() if k != "rope_theta"}
    assert spelled["rope_parameters"] == LLAMA3


def test_rope_of_two_kinds_of_layers_is_spelled_by_both_bases() -> None:
    rope = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
    }
    spelled = spell_both_ways({"rope_parameters": rope})
    assert spelled["rope_theta"] == 1e6
    assert spelled["rope_local_base_freq"] == 1e4
    assert spelled["rope_scaling"] == {"rope_type": "linear", "factor": 8.0}


def test_partial_rope_is_spelled_by_its_share() -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.25}
    spelled = spell_both_ways({"rope_parameters": rope})
    assert (spelled["partial_rotary_factor"], spelled["rope_theta"]) == (0.25, 1e4)
    assert spelled["rope_scaling"] is None


def test_the_inner_config_of_a_model_of_several_parts_is_spelled_too() -> None:
    inner = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}, "dtype": "bfloat16"}
    spelled = spell_both_ways({"model_type": "parts", "text_config": inner})
    assert spelled["text_config"]["rope_theta"] == 1e6
    assert spelled["text_config"]["torch_dtype"] == "bfloat16"


def test_precision_is_spelled_by_both_names() -> None:
    assert spell_both_ways({"dtype": "bfloat16"}) == {
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
    }


def test_what_is_given_is_not_changed() -> None:
    given = {"rope_parameters": dict(LLAMA3), "text_config": {"dtype": "float32"}}
    before = json.dumps(given)
    spell_both_ways(given)
    assert json.dumps(given) == before


@pytest.mark.parametrize("rope", [None, "none", []])
def test_models_without_rope_are_left_as_they_are(rope: Any) -> None:
    assert spell_both_ways({"rope_parameters": rope, "n_embd": 4}) == {
        "rope_parameters": rope,
        "n_embd": 4,
    }


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("qwen3", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
        ("llama", {"rope_parameters": LLAMA3}),
        ("gemma3_text", {}),
        (
            "gemma3_text",
            {
                "rope_parameters": {
                    "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6},
                    "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
                }
            },
        ),
        ("gpt_neox", {"num_key_value_heads": None}),
        ("stablelm", {}),
        ("gpt2", {"n_embd": 32, "n_head": 4}),
    ],
    ids=["plain", "llama3", "two kinds", "two kinds, scaled", "partial", "partial 2", "none"],
)
def test_transformers_reads_both_spellings_as_the_same_model(
    tmp_path: Path, kind: str, fields: dict[str, Any]
) -> None:
    config, content = written(kind, tmp_path, **fields)
    spelled = spell_both_ways(content)
    read = reread(spelled, tmp_path)
    assert read.to_dict().get("rope_parameters") == config.to_dict().get("rope_parameters")
    if "rope_parameters" not in content:
        return
    old = {name: value for name, value in spelled.items() if name != "rope_parameters"}
    assert reread(old, tmp_path).rope_parameters == config.rope_parameters


YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_theta": 1e6,
}
TURNED = {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6}
LOCALLY = {"rope_type": "default", "rope_theta": 1e4}


@pytest.mark.parametrize(
    ("kind", "rope", "is_spelled"),
    [
        ("llama", YARN, True),
        ("gpt_neox", {**YARN, "partial_rotary_factor": 0.25}, False),
        ("gemma4_text", {"full_attention": TURNED, "sliding_attention": LOCALLY}, False),
    ],
)
def test_an_older_name_that_would_be_read_as_another_rope_is_left_out(
    tmp_path: Path, kind: str, rope: dict[str, Any], is_spelled: bool
) -> None:
    fields = {"num_key_value_heads": None} if kind == "gpt_neox" else {}
    config, content = written(kind, tmp_path, rope_parameters=rope, **fields)
    content = {**content, "dtype": "bfloat16"}
    (tmp_path / "config.json").write_text(json.dumps(content), "utf-8")
    add_older_names(tmp_path)
    after = json.loads((tmp_path / "config.json").read_text("utf-8"))
    assert ("rope_scaling" in after) is is_spelled
    assert after["torch_dtype"] == "bfloat16"
    assert AutoConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters
