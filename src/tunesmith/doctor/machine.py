"""Look at the machine without any library that takes long to import."""

from __future__ import annotations

import platform
import tempfile
from collections.abc import Iterator

from tunesmith.doctor.findings import Finding
from tunesmith.hardware import (
    GIB,
    cpu_features,
    cpu_name,
    disk_free,
    memory_gib,
    num_cores,
    total_memory_gib,
)
from tunesmith.settings import read_settings

LITTLE_DISK = GIB


def look_at_machine() -> Iterator[Finding]:
    """Look at processor, memory and disks."""
    python = f"{platform.python_version()} ({platform.python_implementation()})"
    yield Finding("machine", "Python", python)
    yield Finding("machine", "system", f"{platform.system()} {platform.machine()}")
    features = ", ".join(cpu_features()) or "none that speed up products"
    yield Finding("machine", "processor", f"{cpu_name()}, {num_cores()} cores for us: {features}")
    free, total = memory_gib(), total_memory_gib()
    yield Finding("machine", "memory", f"{free:.1f} GiB free of {total:.1f}")
    settings = read_settings()
    for name, folder in (("runs", settings.runs), ("cache", settings.cache)):
        room = disk_free(folder)
        little = "free some space before training" if room < LITTLE_DISK else ""
        yield Finding(
            "machine", f"disk of {name}", f"{room / GIB:.1f} GiB free: {folder}", hint=little
        )
    yield _look_at_temporary_files()


def _look_at_temporary_files() -> Finding:
    """Write one: libraries underneath do, and what follows too."""
    try:
        with tempfile.NamedTemporaryFile() as file:
            file.write(bytes(1))
    except OSError as problem:
        hint = "name a folder that can be written in TMPDIR"
        why = f"cannot be written: {problem}"
        return Finding("machine", "temporary files", why, "broken", hint)
    return Finding("machine", "temporary files", tempfile.gettempdir())
