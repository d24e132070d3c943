"""What is set for the whole process."""

import os
import subprocess
import sys
from pathlib import Path

KINDS = Path("/sys/kernel/mm/transparent_hugepage/enabled")
MEASURE = """
import re, torch
from pathlib import Path
from tunesmith.settings import take_large_pages

{call}
held = torch.ones(64 << 20)
print(re.search(r"AnonHugePages: +(\\d+)", Path("/proc/self/smaps_rollup").read_text())[1])
"""


def test_large_tensors_lie_on_large_pages_where_there_are_some() -> None:
    kinds = KINDS.read_text() if KINDS.exists() else "[never]"
    if "[madvise]" in kinds:
        assert _large_kib("take_large_pages()") > 0
        assert _large_kib("") == 0
    else:
        _large_kib("take_large_pages()")  # works nevertheless


def _large_kib(call: str) -> int:
    program = MEASURE.format(call=call)
    others = {name: value for name, value in os.environ.items() if not name.startswith("THP_")}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, env=others
    )
    return int(done.stdout)
