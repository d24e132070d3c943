"""A model that is put into a folder takes an older one's place."""

from __future__ import annotations

from pathlib import Path

from tunesmith.runs.published import publish
from tunesmith.runs.run import Run


def test_files_of_an_older_model_do_not_stay_beside_the_new_one(tmp_path: Path) -> None:
    run, folder = Run(tmp_path / "run"), tmp_path / "saves"
    run.model.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (run.model / name).write_text("new", "utf-8")
    folder.mkdir()
    stale = ("model-00001-of-00002.safetensors", "adapter_config.json", "adapter_model.safetensors")
    for name in (*stale, "model.safetensors", "notes.txt", "mine.safetensors"):
        (folder / name).write_text("old", "utf-8")
    publish(run, folder)
    assert not any((folder / name).exists() for name in stale)
    assert (folder / "model.safetensors").read_text("utf-8") == "new"
    assert (folder / "notes.txt").read_text("utf-8") == "old"
    assert (folder / "mine.safetensors").read_text("utf-8") == "old"
