"""Write a folder aside and publish it whole, or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from tunesmith.errors import ExportError, RunError
from tunesmith.hardware import disk_free
from tunesmith.runs.write import sync_folder, sync_tree

OTHER_FILES_BYTES = 64 << 20


def check_target(to: Path) -> None:
    """Refuse a folder that holds something, or that could not be made."""
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            partial_of(to).lstat()  # `exists` hides that no file can have the name
        held = to.is_dir() and any(to.iterdir())
        taken = held or to.is_symlink() or (to.exists() and not to.is_dir())
        above = next(folder for folder in to.parents if folder.exists())
    except (OSError, ValueError) as problem:
        raise ExportError(
            f"the folder cannot be made: {problem}", hint="choose another folder", where=str(to)
        ) from None
    if to.is_dir() and _is_here(to):
        raise ExportError(
            "this is the folder that you are in, and an export would be put in its place",
            hint="name a folder that is not there yet, such as --to model",
            where=str(to),
        )
    if taken:
        raise ExportError(
            "the folder is there already and not empty"
            if held
            else f"this is a {'link' if to.is_symlink() else 'file'}",
            hint="choose another one, or delete it first",
            where=str(to),
        )
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        what = "is not writable" if above.is_dir() else "is a file"
        raise ExportError(
            f"the folder cannot be made: {above} {what}",
            hint="choose a folder that can be written",
            where=str(to),
        )


def _is_here(folder: Path) -> bool:
    with suppress(OSError):  # the folder that one is in may have been deleted
        return folder.samefile(Path.cwd())
    return False


def partial_of(to: Path) -> Path:
    """Name the hidden folder in which an export is written."""
    return to.with_name(f".{to.name}.partial")


@contextmanager
def writing_aside(to: Path) -> Iterator[Path]:
    """Give a hidden folder to write into; it becomes `to` if all went well, else it vanishes.

    Raises:
        ExportError: if the disk refuses, or another export writes there.
    """
    aside = partial_of(to)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        with _alone(to):
            shutil.rmtree(aside, ignore_errors=True)
            aside.mkdir()
            try:
                yield aside
                sync_tree(aside)
                aside.rename(to)
                sync_folder(to.parent)
            finally:
                shutil.rmtree(aside, ignore_errors=True)
    except (OSError, SafetensorError, RunError) as problem:
        raise ExportError(
            f"the export cannot be written: {problem}",
            hint="free some space or choose another folder; nothing was published",
            where=str(to),
        ) from problem


@contextmanager
def _alone(to: Path) -> Iterator[None]:
    """Hold the lock beside a folder while it is made; the system frees it after a kill."""
    lock = FileLock(to.with_name(f".{to.name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ExportError(
            "another export writes into this folder",
            hint="wait for it, or choose another folder",
            where=str(to),
        ) from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def check_room(to: Path, num_bytes: int) -> None:
    """Refuse to start where weights of that size would not fit."""
    needed = num_bytes + OTHER_FILES_BYTES
    free = disk_free(to.parent)
    if needed > free:
        raise ExportError(
            f"the export needs {needed:,} bytes, {free:,} are free",
            hint="free some space or choose another folder",
            where=str(to),
        )


def size_of(folder: Path) -> int:
    """Count the bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
