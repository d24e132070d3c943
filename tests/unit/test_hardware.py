"""Freed memory stays at hand."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

TAKEN_TWICE = """
import resource, torch
from tunesmith.hardware import use_memory
use_memory(keep=KEEP)
def faults(count, mib):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    held = [torch.empty(mib * 1024**2, dtype=torch.uint8).fill_(1) for _ in range(count)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults(8, 20), faults(6, 19))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of the GNU C library")
@pytest.mark.parametrize("keep", [True, False])
def test_memory_that_was_freed_is_taken_again_without_fetching_pages(keep: bool) -> None:
    code = TAKEN_TWICE.replace("KEEP", str(keep))
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    first, second = map(int, found.stdout.split())
    assert (second < first // 10) == keep, found.stderr
