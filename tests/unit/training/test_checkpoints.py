"""A checkpoint is whole or it is not taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tunesmith.training.checkpoints import (
    MANIFEST,
    REQUIRED,
    clear_partial,
    list_checkpoints,
    newest_whole,
    partial_folder,
    rotate,
    seal,
    verify,
)

FILES = (*REQUIRED, "adapter_model.safetensors")


def write(checkpoints: Path, step: int) -> Path:
    written = partial_folder(checkpoints) / f"checkpoint-{step}"
    written.mkdir(parents=True)
    for name in FILES:
        (written / name).write_bytes(f"{name} of {step} ".encode() * 50)
    return seal(written, checkpoints, step)


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_sealed_checkpoint_verifies_and_has_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, 20)
    assert path.name == "step-000020"
    assert verify(path).problem == ""
    assert not list(partial_folder(tmp_path).iterdir())


@pytest.mark.parametrize("damage", [remove, empty, halve, flip])
@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_every_damage_of_every_file_is_noticed_and_the_one_before_is_taken(
    tmp_path: Path, damage: Callable[[Path], None], name: str
) -> None:
    earlier, later = write(tmp_path, 1), write(tmp_path, 2)
    damage(later / name)
    found, damaged = newest_whole(tmp_path)
    assert found == earlier
    (bad,) = damaged
    assert bad.step == 2
    assert bad.problem
    assert (tmp_path / "damaged-step-000002").is_dir()


def test_a_file_left_out_of_the_manifest_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path, 1)
    manifest = path / MANIFEST
    manifest.write_text(manifest.read_text("utf-8").replace("optimizer.pt", "other.pt"), "utf-8")
    assert verify(path).problem == "optimizer.pt is not listed"


def test_where_nothing_is_whole_nothing_is_taken(tmp_path: Path) -> None:
    empty(write(tmp_path, 1) / REQUIRED[0])
    found, damaged = newest_whole(tmp_path)
    assert found is None
    assert len(damaged) == 1
    assert newest_whole(tmp_path) == (None, [])


def test_what_a_kill_left_half_written_is_no_checkpoint(tmp_path: Path) -> None:
    half = partial_folder(tmp_path) / "checkpoint-3"
    half.mkdir(parents=True)
    (half / "optimizer.pt").write_bytes(b"x")
    assert newest_whole(tmp_path) == (None, [])
    clear_partial(tmp_path)
    assert not half.exists()


def test_a_step_sealed_again_replaces_the_first(tmp_path: Path) -> None:
    flip(write(tmp_path, 1) / "optimizer.pt")
    assert verify(write(tmp_path, 1)).problem == ""


def test_old_checkpoints_are_deleted_but_not_the_best(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        write(tmp_path, step)
    rotate(tmp_path, keep=2, best_step=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == [
        "step-000001",
        "step-000003",
        "step-000004",
    ]
