"""Put a run's model into a folder that somebody named, and find the run behind such a folder."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import orjson

from tunesmith.errors import RunError
from tunesmith.paths import exists
from tunesmith.runs.run import Run
from tunesmith.runs.store import is_run
from tunesmith.runs.write import sync_folder, write_json

MARK = "tunesmith-run.json"
WEIGHTS = ".safetensors"


def publish(run: Run, folder: Path) -> None:
    """Put the trained model into `folder`, in an older one's place; what else lies there stays.

    Weights are hard links where the disk allows, all other files copies: whoever changes one of
    them does not change the run.

    Raises:
        RunError: if the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(run.model.iterdir()):
            _put(path, folder / path.name)
        for stale in _of_a_model(folder):  # transformers would read it beside, or instead
            if not (run.model / stale.name).exists():
                stale.unlink()
        sync_folder(folder)
    except OSError as problem:
        raise RunError(
            f"the model cannot be put there: {problem.strerror or problem}",
            hint=f"it lies whole in {run.model}; copy it from there",
            where=str(folder),
        ) from problem
    write_json(folder / MARK, {"run": str(run.path)})


def _of_a_model(folder: Path) -> list[Path]:
    """List the files of weights, and those that say how to read them."""
    weights = [f"{name}{WEIGHTS}" for name in ("model", "model-*", "adapter_model")]
    others = (f"model{WEIGHTS}.index.json", "adapter_config.json", "base.json")
    return [path for pattern in (*weights, *others) for path in folder.glob(pattern)]


def _put(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        if source.suffix != WEIGHTS:
            raise OSError
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    partial.replace(target)


def find_published(folder: Path) -> Run | None:
    """Return the run whose model was put into `folder`; None if it holds none of ours."""
    mark = folder / MARK
    if not exists(mark):
        return None
    try:
        path = Path(orjson.loads(mark.read_bytes())["run"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Run(path) if is_run(path) else None
