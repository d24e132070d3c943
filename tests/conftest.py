"""What every test shares: folders of its own, and tiny models made once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import tiny
from tests.command import Command
from tests.matrix import Matrix

SHARED = os.environ.get("TUNESMITH_SHARED", "")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep runs, cache and model caches of a test inside its own folder."""
    monkeypatch.setenv("TUNESMITH_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("TUNESMITH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TUNESMITH_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Qwen3 of two layers with random weights."""
    return tiny.make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Forty questions and answers."""
    return tiny.write_pairs(tmp_path / "pairs.jsonl")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data; tests that ask for it are marked proof."""
    if not SHARED:
        pytest.fail("set TUNESMITH_SHARED to the folder of real data for `make proof`")
    return Path(SHARED)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line."""
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="session")
def matrix() -> Iterator[Matrix]:
    """What combinations of options do, written down at the end."""
    tried = Matrix()
    yield tried
    tried.write()
