"""Models beside the one that learns are counted, all along or before the first update."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForSequenceClassification

from tests import tiny
from tests.pipelines.test_footprint import TRAIN

WORDS = "the quick brown fox jumps over the lazy dog " * 30
PAIRS = [
    {"instruction": f"question {n} {WORDS[:900]}", "chosen": WORDS[:900], "rejected": f"{n}"}
    for n in range(16)
]
REWARD: dict[str, Any] = {"method": {"name": "reward"}}
SCORERS: dict[str, dict[str, Any]] = {
    "lora": REWARD,
    "full": {**REWARD, "tuning": {"kind": "full"}},
}
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(sys.platform != "linux", reason="the peak is read where Linux keeps it"),
]


def make(folder: Path, layers: int = 12, **changes: Any) -> Path:
    return tiny.make_model(
        folder,
        "qwen3",
        hidden_size=768,
        intermediate_size=2304,
        num_hidden_layers=layers,
        num_attention_heads=12,
        head_dim=64,
        max_position_embeddings=1024,
        **changes,
    )


def assert_near(folder: Path, base: Path, rows: Sequence[Any], **sections: Any) -> None:
    """Train in a process of its own, and compare its peak with what was estimated."""
    given = {
        "data": {"max_tokens": 512},
        "optimizer": {"learning_rate": 1e-4, "batch_size": 4},
        "run": {"name": "of-memory", "steps": 3},
        **sections,
        "compute": {"precision": "fp32", "threads": 1, **sections.get("compute", {})},
    }
    recipe = tiny.write_recipe(
        folder / "r.json", base, tiny.write_rows(folder / "rows.jsonl", rows), **given
    )
    if given.get("method", {}).get("name") == "reward":
        tiny.change_json(recipe, evaluate={})  # it gives no answers
    said = subprocess.run(
        [sys.executable, "-c", TRAIN, str(recipe)], capture_output=True, text=True
    )
    assert said.returncode == 0, said.stderr
    found = json.loads(said.stdout.splitlines()[-1])
    assert found["estimated"] == pytest.approx(found["measured"], rel=0.15)


@pytest.mark.parametrize("case", SCORERS.values(), ids=SCORERS)
def test_a_model_that_scores_has_no_head_of_words(tmp_path: Path, case: dict[str, Any]) -> None:
    model = make(tmp_path / "model", vocab_size=60_000, tie_word_embeddings=False)
    assert_near(tmp_path, model, PAIRS, **case)


def test_a_teacher_is_counted(tmp_path: Path) -> None:
    rows = [{"instruction": f"question {n} {WORDS}", "output": WORDS} for n in range(16)]
    teacher = make(tmp_path / "teacher")
    method = {"name": "distill", "teacher": str(teacher)}
    assert_near(tmp_path, make(tmp_path / "model", 4), rows, method=method)


def test_a_reference_is_counted_while_it_is_asked(tmp_path: Path) -> None:
    method = {"name": "dpo", "reference": str(make(tmp_path / "other"))}
    assert_near(tmp_path, make(tmp_path / "model", 2), PAIRS, method=method)


def test_whole_weights_are_counted_while_few_bits_are_found(tmp_path: Path) -> None:
    rows = [{"instruction": f"question {n} {WORDS}", "output": WORDS} for n in range(16)]
    few = {"model": {"quantize": {"kind": "nf4"}}, "tuning": {"kind": "lora", "init": "loftq"}}
    assert_near(tmp_path, make(tmp_path / "model"), rows, **few)


def test_a_reward_model_that_judges_is_counted(tmp_path: Path) -> None:
    judge = make(tmp_path / "judge")
    scorer = AutoModelForSequenceClassification.from_pretrained(str(judge), num_labels=1)
    scorer.save_pretrained(str(judge))
    rows = [{"instruction": f"question {n}", "output": ""} for n in range(16)]
    method = {
        "name": "ppo",
        "answer_tokens": 16,
        "rewards": [{"kind": "model", "model": str(judge)}],
    }
    assert_near(tmp_path, make(tmp_path / "model", 2), rows, method=method)
