"""Several processes learn what one learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests import tiny
from tests.faults import work
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import train

ROWS = 9
"""Of four in each update the last finds one left, which is fewer than there are processes."""
HELD_OUT = 3
CHATS: dict[str, Any] = {}
FULL: dict[str, Any] = {"tuning": {"kind": "full"}}
TEXTS: dict[str, Any] = {"method": {"name": "pretrain"}, "tuning": {"kind": "full"}}
PAIRS: dict[str, Any] = {"method": {"name": "dpo"}}


@pytest.fixture(autouse=True)
def forked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunesmith.training.workers._start", work.ForkedWorker)


def write(folder: Path, model: Path, processes: int, **sections: Any) -> Path:
    method = sections.get("method", {}).get("name", "sft")
    rows: list[dict[str, Any]] = [
        {"instruction": f"question {n} " * (1 + n % 4), "input": "", "output": f"It is {n * 7}."}
        for n in range(ROWS + HELD_OUT)
    ]
    if method == "pretrain":
        rows = [{"text": f"the quick brown fox jumps over {n} lazy dogs " * 2} for n in range(30)]
    if method == "dpo":
        rows = [
            {"instruction": f"question {n}", "chosen": "It is so.", "rejected": f"Who? {n}"}
            for n in range(ROWS + HELD_OUT)
        ]
    data = tiny.write_rows(folder / "rows.jsonl", rows[:-HELD_OUT])
    held_out = tiny.write_rows(folder / "held_out.jsonl", rows[-HELD_OUT:])
    options: dict[str, Any] = {
        "data": {"train": [str(data)], "validation": [str(held_out)], "max_tokens": 64},
        "compute": {"precision": "fp32", "threads": 1, "processes": processes},
        "optimizer": {"learning_rate": 1e-3, "batch_size": 4},
        "run": {"name": f"of-{processes}", "steps": 6, "seed": 1, "save_every_steps": 2},
        **sections,
    }
    return tiny.write_recipe(folder / f"recipe-{processes}.json", model, data, **options)


def train_by(processes: int, folder: Path, model: Path, **sections: Any) -> Run:
    return train(load_recipe(write(folder, model, processes, **sections)))


def weights(run: Run) -> dict[str, torch.Tensor]:
    (file,) = run.model.glob("*.safetensors")
    return load_file(file)


def figures(run: Run, name: str) -> list[float]:
    return [record[name] for record in run.metrics() if name in record]


@pytest.mark.parametrize(
    "sections", [CHATS, FULL, TEXTS, PAIRS], ids=["lora", "full", "texts", "pairs"]
)
def test_two_processes_learn_what_one_learns(
    tmp_path: Path, tiny_model: Path, sections: dict[str, Any]
) -> None:
    one = train_by(1, tmp_path, tiny_model, **sections)
    two = train_by(2, tmp_path, tiny_model, **sections)
    assert two.status().state == "done"
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(two)[name], expected, rtol=1e-6, atol=2e-6)
    for name in ("loss", "eval_loss", "grad_norm"):
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-5)
    for name in ("rewards_margin", "eval_rewards_margin", "logps_chosen"):
        assert figures(two, name) == pytest.approx(figures(one, name), rel=1e-3, abs=1e-6)
    assert len(figures(two, "rewards_margin")) == (6 if sections is PAIRS else 0)


def test_weights_that_only_some_rows_reach_are_learned_alike(tmp_path: Path) -> None:
    model = tiny.make_model(tmp_path / "routed", "routed")
    one = train_by(1, tmp_path, model, **FULL)
    two = train_by(2, tmp_path, model, **FULL)
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(two)[name], expected, rtol=1e-6, atol=2e-6)
