"""Where runs of these tests lie, and where they are exported to."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for all that a module makes."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture
def to(tmp_path: Path) -> Path:
    """A folder that is not there yet, in one that holds nothing else."""
    (tmp_path / "exports").mkdir()
    return tmp_path / "exports" / "out"
