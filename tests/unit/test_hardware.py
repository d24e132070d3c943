"""Freed memory stays at hand, and threads are as many as somebody said."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from tunesmith.hardware import num_cores, num_threads

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


@pytest.mark.parametrize(
    ("said", "threads"), [("3", 3), ("5,2", 5), ("", 0), ("0", 0), ("many", 0), (None, 0)]
)
def test_threads_are_those_that_torch_takes(
    monkeypatch: pytest.MonkeyPatch, said: str | None, threads: int
) -> None:
    if said is None:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    else:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    assert num_threads() == (threads or num_cores())
