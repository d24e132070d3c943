"""The installation works from one folder, in a namespace without a network."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.proof
ROOT = Path(__file__).parents[2]
HOUSE = ROOT / "wheelhouse"


@pytest.fixture(scope="module")
def house() -> Path:
    made = subprocess.run(["make", "wheelhouse"], cwd=ROOT, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return HOUSE


def test_every_wheel_has_its_checksum(house: Path) -> None:
    sums = dict(
        reversed(line.split("  "))  # type: ignore[misc]
        for line in (house / "SHA256SUMS").read_text("utf-8").splitlines()
    )
    wheels = {path.name: path for path in house.glob("*.whl")}
    assert sums.keys() == wheels.keys()
    assert any(name.startswith("torch-") for name in wheels)
    assert any(name.startswith("tunesmith-") for name in wheels)
    for name, path in wheels.items():
        assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]


def test_it_installs_and_runs_without_a_network(tmp_path: Path, house: Path) -> None:
    script = f"""
set -e
{sys.executable} -m venv {tmp_path}/venv
{tmp_path}/venv/bin/pip install --quiet --no-index --find-links {house} 'tunesmith[serve]'
cd {tmp_path}
venv/bin/tunesmith --version
venv/bin/tunesmith data show {ROOT}/src/tunesmith/starter/data/conch_zh.json --row 1
"""
    ran = subprocess.run(
        ["unshare", "-rn", "bash", "-c", script], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert "tunesmith 0." in ran.stdout
    assert "神奇海螺" in ran.stdout
