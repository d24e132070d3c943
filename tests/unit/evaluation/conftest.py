"""What the tests of benchmarks share."""

from pathlib import Path

import pytest
import torch

from tests import suites, tiny


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    return tmp_path_factory.mktemp("suites")


@pytest.fixture(scope="module")
def model(root: Path) -> Path:
    return tiny.make_model(root / "model", **suites.LONG)
