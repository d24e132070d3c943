"""Write files so that a power failure leaves the old one or the new one, never a torn one."""

from __future__ import annotations

import os
from pathlib import Path

import orjson

from tunesmith.errors import RunError


def write_json(path: Path, value: object) -> None:
    """Write `value` as JSON with readable indentation, atomically."""
    write_bytes(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: Path, content: bytes) -> None:
    """Write to a temporary file beside `path`, sync it, rename it, sync the folder.

    Raises:
        RunError: if the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        sync_folder(path.parent)
    except OSError as problem:
        partial.unlink(missing_ok=True)
        raise disk_error(problem, path, len(content)) from problem


def sync_folder(folder: Path) -> None:
    """Make renames inside `folder` durable; Windows has no such call and needs none."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_tree(folder: Path) -> None:
    """Make every file below `folder` durable, and the folder itself.

    Files get the rights of the folder they lie in: some are written for their owner alone.
    """
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            path.chmod(path.parent.stat().st_mode & 0o666)
            with path.open("rb") as file:
                os.fsync(file.fileno())
        else:
            sync_folder(path)
    sync_folder(folder)


def disk_error(problem: OSError, path: Path, num_bytes: int) -> RunError:
    """Say which file of how many bytes could not be written, and why."""
    return RunError(
        f"cannot write {num_bytes:,} bytes: {problem.strerror or problem}",
        hint="free some space or choose another folder with TUNESMITH_RUNS, then resume the run",
        where=str(path),
    )
