"""A combination that ran before must not be refused in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import matrix
from tests.matrix import RUNS, Matrix


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Matrix:
    monkeypatch.setattr(matrix, "FOUND", tmp_path / "matrix.json")
    return Matrix()


def test_what_ran_before_may_not_be_refused_now(tried: Matrix) -> None:
    assert tried.known["methods"]["sft"]["lora"] == RUNS
    with pytest.raises(AssertionError, match="sft with lora ran before: refused: no"):
        tried.note("methods", "sft", "lora", "refused: no")
    assert tried.known["precisions"]["full"]["nf4"] != RUNS
    tried.note("precisions", "full", "nf4", "refused: otherwise")
    tried.note("methods", "new", "lora", "refused: not yet")


def test_several_runs_of_the_proofs_add_up(tried: Matrix) -> None:
    tried.note("methods", "sft", "lora", RUNS)
    tried.write()
    other = Matrix()
    other.note("methods", "sft", "full", RUNS)
    other.write()
    found = matrix.read_cells(matrix.FOUND)
    assert found == {"methods": {"sft": {"lora": RUNS, "full": RUNS}}}
