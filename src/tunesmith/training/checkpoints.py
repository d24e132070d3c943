"""Sealed checkpoints: written aside, synced, listed with their hashes, then renamed into place.

A folder under `checkpoints/` is either whole or it is not there. Resuming checks every byte, takes
the newest checkpoint that is whole, and sets damaged ones aside by name instead of deleting them.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import orjson

from tunesmith.errors import RunError
from tunesmith.hardware import disk_free
from tunesmith.models.fingerprint import file_sha256
from tunesmith.runs.write import sync_folder, sync_tree, write_json

MANIFEST = "manifest.json"
PARTIAL = ".partial"
DELETED = ".deleted-"
RANDOM = "rng_state.pth"
REQUIRED = ("trainer_state.json", "optimizer.pt", "scheduler.pt", RANDOM)


@dataclass(frozen=True)
class Checkpoint:
    """A folder of one step.

    Attributes:
        problem: empty if every file is there with the bytes it was sealed with.
    """

    path: Path
    step: int
    problem: str = ""


def partial_folder(checkpoints: Path) -> Path:
    """Return the folder that unfinished checkpoints are written to."""
    return checkpoints / PARTIAL


def checkpoint_folder(checkpoints: Path, step: int) -> Path:
    """Return the folder of the sealed checkpoint of a step."""
    return checkpoints / f"step-{step:06d}"


def random_folder(checkpoint: Path, rank: int) -> Path:
    """Return where a process keeps the state of its random numbers."""
    return checkpoint / "ranks" / str(rank) if rank else checkpoint


def step_of(path: Path) -> int:
    """Tell the step from the name of a sealed checkpoint."""
    return int(path.name.removeprefix("step-"))


def clear_partial(checkpoints: Path) -> None:
    """Remove what a killed process left half written or half deleted."""
    for leftover in (partial_folder(checkpoints), *checkpoints.glob(f"{DELETED}*")):
        shutil.rmtree(leftover, ignore_errors=True)


def seal(written: Path, checkpoints: Path, step: int, *, processes: int = 1) -> Path:
    """Make a written folder durable and give it its name, `step-000200`.

    Returns:
        The sealed folder. A folder of that name that was there before is replaced.
    """
    files = {}
    for path in sorted(p for p in written.rglob("*") if p.is_file()):
        files[str(path.relative_to(written))] = {
            "bytes": path.stat().st_size,
            "sha256": file_sha256(path),
        }
    write_json(written / MANIFEST, {"step": step, "processes": processes, "files": files})
    sync_tree(written)
    target = checkpoint_folder(checkpoints, step)
    if target.exists():
        set_aside(target)
    written.rename(target)
    sync_folder(checkpoints)
    return target


def no_room(written: Path, step: int, problem: Exception) -> RunError:
    """Say why the checkpoint of a step could not be written, and how much room there is."""
    size = sum(path.stat().st_size for path in written.rglob("*") if path.is_file())
    free = disk_free(written.parent.parent)
    return RunError(
        f"the checkpoint of step {step} cannot be written: {problem}; "
        f"{size:,} bytes were written, {free:,} are free",
        hint="free some space, then resume the run; the checkpoints before it are whole",
        where=str(written),
    )


def verify(path: Path) -> Checkpoint:
    """Compare a checkpoint with its manifest, byte by byte."""
    step = step_of(path)
    try:
        manifest = orjson.loads((path / MANIFEST).read_bytes())
        files = {
            str(name): (int(entry["bytes"]), str(entry["sha256"]))
            for name, entry in manifest["files"].items()
        }
        ranks = range(int(manifest["processes"]))
        sound = manifest["step"] == step
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        sound = False
    if not sound:
        return Checkpoint(path, step, f"{MANIFEST} is missing or damaged")
    randoms = [random_folder(path, rank) / RANDOM for rank in ranks]
    required = [*REQUIRED, *(str(file.relative_to(path)) for file in randoms)]
    return Checkpoint(path, step, _find_damage(path, files, required))


def _find_damage(path: Path, files: dict[str, tuple[int, str]], required: list[str]) -> str:
    """Say which file is not what was sealed; nothing if all are."""
    for name in required:
        if name not in files:
            return f"{name} is not listed"
    for name, (size, sha256) in files.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if file.stat().st_size != size or file_sha256(file) != sha256:
            return f"{name} is not what was saved"
    return ""


def list_checkpoints(checkpoints: Path) -> list[Path]:
    """List the sealed checkpoints, oldest first, without reading them."""
    found = [path for path in checkpoints.glob("step-*") if path.name[5:].isdigit()]
    return sorted(found, key=step_of)


def newest_whole(checkpoints: Path) -> tuple[Path | None, list[Checkpoint]]:
    """Find the newest checkpoint that verifies.

    Returns:
        Its folder, or None; and the damaged ones that were passed over, now renamed
        `damaged-step-...` so that nobody takes them for whole.
    """
    damaged: list[Checkpoint] = []
    for path in reversed(list_checkpoints(checkpoints)):
        checkpoint = verify(path)
        if not checkpoint.problem:
            return path, damaged
        set_aside(path)
        damaged.append(checkpoint)
    return None, damaged


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint so that nobody takes it for whole; return its new folder."""
    return path.rename(_free_name(path.with_name(f"damaged-{path.name}")))


def rotate(checkpoints: Path, *, keep: int, best_step: int | None) -> None:
    """Delete all but the newest `keep` checkpoints and the one of the best held-out loss."""
    for path in list_checkpoints(checkpoints)[:-keep]:
        if step_of(path) != best_step:
            doomed = checkpoints / f"{DELETED}{path.name}"
            path.rename(doomed)
            shutil.rmtree(doomed)


def _free_name(path: Path) -> Path:
    number = 1
    while path.exists():
        path = path.with_name(f"{path.name.split('~')[0]}~{number}")
        number += 1
    return path
