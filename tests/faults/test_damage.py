"""Damaged checkpoints are noticed, said, and the one before is used to the same end."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests import tiny
from tests.faults import work
from tests.unit.training.test_checkpoints import empty, flip, halve, remove
from tunesmith.recipe.load import load_recipe
from tunesmith.runs.run import Run
from tunesmith.training.train import resume, train

DAMAGES = {"remove": remove, "empty": empty, "halve": halve, "flip": flip}


@pytest.fixture
def finished(tmp_path: Path, tiny_model: Path) -> Run:
    data = tiny.write_pairs(tmp_path / "pairs.jsonl")
    recipe = tiny.write_recipe(
        tmp_path / "r.json",
        tiny_model,
        data,
        run={"steps": 6, "save_every_steps": 2},
    )
    return train(load_recipe(recipe))


def spoil(run: Run, name: str, damage: str) -> None:
    """Take the run back to its last checkpoint and damage that."""
    shutil.rmtree(run.model)
    DAMAGES[damage](run.checkpoints / "step-000006" / name)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_run_goes_on_from_the_checkpoint_before(finished: Run, damage: str) -> None:
    expected = work.weights_of(finished)
    spoil(finished, "optimizer.pt", damage)
    resume(finished)
    assert work.weights_of(finished) == expected
    assert "checkpoint step-000006 is damaged (optimizer.pt" in finished.log_file.read_text("utf-8")


@pytest.mark.proof
@pytest.mark.parametrize("damage", DAMAGES)
def test_every_file_of_a_checkpoint(finished: Run, damage: str) -> None:
    expected = work.weights_of(finished)
    names = [path.name for path in (finished.checkpoints / "step-000006").iterdir()]
    assert len(names) >= 6
    for name in names:
        spoil(finished, name, damage)
        resume(finished)
        assert work.weights_of(finished) == expected, name
