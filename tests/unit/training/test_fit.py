"""The largest batch that a footprint is asked for is about the largest that comes up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import tiny
from tunesmith.methods.batches import count_tokens, split_update
from tunesmith.methods.method import Joining, Row
from tunesmith.training import updates
from tunesmith.training.footprint import Footprint
from tunesmith.training.updates import UpdateBatches

PROOF = pytest.mark.proof
WRITES = {"rewards": {"kind": "length", "limit": 4}, "answer_tokens": 6}
METHODS: dict[str, dict[str, Any]] = {
    "ppo": {"name": "ppo", **WRITES, "minibatches": 2},
    "grpo": {"name": "grpo", **WRITES, "group_size": 4},
    "kto": {"name": "kto"},
}


@pytest.mark.parametrize("shape", ["llama", pytest.param("masked", marks=PROOF)])
@pytest.mark.parametrize("name", ["ppo", pytest.param("grpo", marks=PROOF), "kto"])
def test_no_batch_is_larger_than_told_nor_half_as_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, shape: str
) -> None:
    told: list[tuple[int, bool]] = []
    met: list[list[int]] = []
    estimate, join = Footprint.gib, UpdateBatches.__call__

    def noted(self: Footprint, tokens: int, **how: Any) -> float:
        told.append((tokens, how["split"]))
        return estimate(self, tokens, **how)

    def joined(self: UpdateBatches, rows: list[Row]) -> dict[str, Any]:
        met.append(batch_sizes(rows, self.how, self.tokens))
        return join(self, rows)

    monkeypatch.setattr(Footprint, "gib", noted)
    monkeypatch.setattr(updates.UpdateBatches, "__call__", joined)
    judged = METHODS[name]["name"] == "kto"
    rows = [
        {"instruction": f"question {n}", "output": "a", **({"label": n % 2 == 0} if judged else {})}
        for n in range(8)
    ]
    model = tiny.make_model(tmp_path / shape, shape)
    tiny.train_run(
        tmp_path,
        model,
        data={"train": [str(tiny.write_rows(tmp_path / "rows.jsonl", rows))]},
        method=METHODS[name],
        optimizer={"batch_size": 4},
        run={"steps": 2},
        compute={"threads": 1, "precision": "fp32"},
    )
    largest = max(size for sizes in met for size in sizes)
    assert {split for _, split in told} == {any(len(sizes) > 1 for sizes in met)}
    assert told[0][0] / 2 < largest <= told[0][0]


def batch_sizes(rows: list[Row], how: Joining, tokens: int) -> list[int]:
    sizes = [count_tokens(row, how) for row in rows]
    parts = split_update(sizes, tokens=tokens, flat=how.flat)
    held = (sizes[part] for part in parts)
    return [sum(part) if how.flat else max(part) * len(part) for part in held]
