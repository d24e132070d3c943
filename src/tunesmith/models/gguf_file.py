"""The GGUF that a person means, and what its model is called."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tunesmith.errors import ModelError
from tunesmith.models.gguf_header import is_gguf, read_gguf_header
from tunesmith.paths import exists, expand

UNTOLD = re.compile(
    r"(ggml[-_.])?model([-_.]?(f16|f32|bf16|i?q\d.*|\d{5}-of-\d{5}))*", re.IGNORECASE
)
"""Names of files that say nothing of the model in them; exports have one of them."""
PART = re.compile(r"(.+)-\d{5}-of-\d{5}")
ADAPTER = "adapter"


def find_gguf(name: str | Path) -> Path | None:
    """Find the GGUF behind a name: a file, or the one in a folder that holds no other model.

    Of a model in several files the first is found, which llama.cpp reads on from.

    Raises:
        ModelError: if the folder holds several models.
    """
    path = expand(name)
    if not str(name).strip() or not exists(path):
        return None
    if not path.is_dir():
        return path if is_gguf(path) else None
    if any((path / other).exists() for other in ("config.json", "snapshots", "recipe.yaml")):
        return None
    files = [file for file in sorted(path.glob("*.gguf")) if is_gguf(file)]
    models = {_whole(file): file for file in reversed(files)}
    if len(models) > 1:
        listed = ", ".join(file.name for file in reversed(models.values()))
        raise ModelError(
            f"the folder holds several models: {listed}",
            hint=f"name one of them, such as {shlex.quote(str(files[0]))}",
            where=str(path),
        )
    return files[0] if files else None


def find_gguf_adapter(name: str) -> Path:
    """Find the adapter behind a name: a file, or the folder of an export.

    Raises:
        ModelError: if there is none.
    """
    path = expand(name)
    file = path / f"{ADAPTER}.gguf" if exists(path) and path.is_dir() else path
    if not is_gguf(file):
        raise ModelError(
            "there is no GGUF of an adapter",
            hint="write one of a run: tunesmith export RUN --to FOLDER --format gguf-adapter",
            where=str(file),
        )
    if read_gguf_header(file).get("general.type") != ADAPTER:
        raise ModelError(
            "the GGUF is a whole model, and no adapter that could answer over another one",
            hint="serve it by itself, at another --port",
            where=str(file),
        )
    return file


def _whole(file: Path) -> str:
    part = PART.fullmatch(file.stem)
    return part.group(1) if part else file.stem


def name_of_gguf(file: Path) -> str:
    """Return what the model of a file is called: the file's name, if it says anything.

    Raises:
        ModelError: if it cannot be read.
    """
    stem = _whole(file)
    if not UNTOLD.fullmatch(stem):
        return stem
    told = str(read_gguf_header(file).get("general.name", "")).strip()
    if told.startswith("/"):  # where it lay when it was written
        told = Path(told).name
    return told or file.absolute().parent.name or stem
