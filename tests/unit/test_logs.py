"""What packages say of themselves is not told to the person who waits."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.proof
def test_a_command_tells_nothing_of_packages_it_does_not_need() -> None:
    script = "from tunesmith.logs import hush; hush(); import torchao"
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout + ran.stderr == ""
