"""Find the folder of a model by what a person would call it."""

from __future__ import annotations

import difflib
import shlex
from pathlib import Path

from tunesmith import starter
from tunesmith.errors import ModelError
from tunesmith.models.gguf_header import is_gguf
from tunesmith.paths import expand
from tunesmith.settings import read_settings


def locate(name: str | Path) -> Path:
    """Return the folder that holds config.json.

    Args:
        name: `starter`; a folder; an entry of a Hugging Face cache (`models--Org--Name`), one of
            its snapshots; or `Org/Name`, looked up in the caches of this machine. Nothing is
            ever downloaded.

    Raises:
        ModelError: naming the places that were searched, or the broken link.
    """
    if str(name) == "starter":
        return starter.MODEL
    folder = expand(name)
    if str(name).strip() and _exists(folder):
        return _resolve(folder)
    entry = _find_in_caches(str(name))
    if entry is not None:
        return _resolve(entry)
    raise _not_found(str(name))


def _exists(path: Path) -> bool:
    """Whether something has this name, be it a broken link."""
    try:
        return path.exists() or path.is_symlink()
    except OSError:  # longer than any file's name may be
        return False


def _resolve(folder: Path) -> Path:
    _check_link(folder)
    if is_gguf(folder):
        raise ModelError(
            "this is a GGUF, which llama.cpp reads and we do not",
            hint="`tunesmith serve`, chat and evaluate ask it through llama.cpp; else name the "
            "folder or run it was exported from",
            where=str(folder),
        )
    if folder.is_file():
        raise ModelError(
            "a model is a folder, this is a file",
            hint="name the folder that holds config.json",
            where=str(folder),
        )
    if (folder / "snapshots").is_dir():
        folder = _snapshot(folder)
    for path in folder.iterdir():
        _check_link(path)
    if (folder / "config.json").is_file():
        return folder.absolute()
    if (folder / "adapter_config.json").is_file():
        raise ModelError(
            "this is an adapter without its base model",
            hint="name the run it belongs to, or the base model",
            where=str(folder),
        )
    entries = [path for path in folder.iterdir() if path.name.startswith("models--")]
    if len(entries) == 1:
        return _resolve(entries[0])
    raise _no_model(folder)


def _no_model(folder: Path) -> ModelError:
    """Say what a folder holds instead."""
    files = sorted(path for path in folder.glob("*.gguf") if is_gguf(path))
    if files:
        return ModelError(
            f"the folder holds {files[0].name}, which llama.cpp reads and we do not",
            hint=f"ask it through `tunesmith serve {shlex.quote(str(files[0]))}`, chat or "
            "evaluate, or name the run it was exported from",
            where=str(folder),
        )
    if (folder / "model" / "adapter_config.json").is_file():
        return ModelError(
            "this is a run that learned an adapter, not a whole model",
            hint=f"make one with `tunesmith export {shlex.quote(str(folder))} --to FOLDER`; to "
            "train on from it, name its base and add it with model.adapters",
            where=str(folder),
        )
    if (folder / "model" / "config.json").is_file():
        return ModelError(
            "this is a run, and its model lies inside of it",
            hint=f"name {folder / 'model'}",
            where=str(folder),
        )
    inside = sorted(path.name for path in folder.iterdir())[:6]
    return ModelError(
        "the folder holds no config.json",
        hint=f"it holds {', '.join(inside) or 'nothing'}; name the folder of the model itself",
        where=str(folder),
    )


def _snapshot(entry: Path) -> Path:
    reference = entry / "refs" / "main"
    snapshots = {path.name: path for path in (entry / "snapshots").iterdir() if path.is_dir()}
    if reference.is_file():
        wanted = reference.read_text(encoding="utf-8", errors="replace").strip()
        if wanted in snapshots:
            return snapshots[wanted]
        raise ModelError(
            f"refs/main names the snapshot {wanted[:64]}, which is not there",
            hint="copy the whole folder again, or name one of its snapshots",
            where=str(entry),
        )
    if len(snapshots) == 1:
        return next(iter(snapshots.values()))
    names = ", ".join(sorted(snapshots))
    raise ModelError(
        f"the cache entry has {len(snapshots)} snapshots and no refs/main",
        hint=f"name one of its snapshots: {names}" if names else "copy the whole folder again",
        where=str(entry),
    )


def _check_link(path: Path) -> None:
    if path.is_symlink() and not path.exists():
        raise ModelError(
            f"{path.name} is a link to {path.readlink()}, which is not there",
            hint="copy the whole models--Org--Name folder with its blobs, or use `cp -rL`",
            where=str(path.parent),
        )


def _find_in_caches(name: str) -> Path | None:
    entry = "models--" + name.replace("/", "--")
    for cache in read_settings().hub_caches:
        if _exists(cache / entry):
            return cache / entry
    return None


def _not_found(name: str) -> ModelError:
    if Path(name).is_absolute():
        return ModelError(
            f"there is no model {name}",
            hint="mend the path; if the folder was moved, put it back, or a link in its place",
            where=name,
        )
    caches = read_settings().hub_caches
    known = ["starter"]
    for cache in caches:
        known += [
            path.name.removeprefix("models--").replace("--", "/")
            for path in cache.glob("models--*--*")
        ]
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return ModelError(
        f"there is no model {name}: no such folder, nor an entry in a Hugging Face cache",
        hint=f"did you mean {near[0]}?"
        if near
        else "copy the model's folder to this machine and give its path, or set HF_HOME",
        where=", ".join(str(cache) for cache in caches),
    )
