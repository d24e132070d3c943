"""Which files a recipe's sources mean."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tunesmith.data.info import describe_set
from tunesmith.data.reading import READERS
from tunesmith.data.rows import Kind, spell
from tunesmith.errors import DataError
from tunesmith.logs import logger
from tunesmith.paths import exists, expand
from tunesmith.recipe.data import Data, HeldOut, Source

log = logger(__name__)
ABOUT = re.compile(r"dataset_(info|dict)\.json$|(readme|licen[cs]e)\b", re.IGNORECASE)
HELD_OUT = re.compile(r"(test|valid|validation|val|dev|eval)([-_.].*)?$")


@dataclass(frozen=True)
class RowSet:
    """One set of rows: its files and how to read them.

    Attributes:
        name: what the recipe calls it.
        format: a name of FORMATS, or auto.
        columns: our name of a column to the file's.
        weight: share in the mix; None uses every row once.
        measured_as: what measures of this set alone are called; None measures it with the others.
        media: folder that files named in rows lie in; None for that of the rows' file.
        image_pixels: most pixels of an image, others are made smaller; None leaves all.
        video: frames a second, frames and pixels of one at most, that are taken of videos.
    """

    name: str
    files: tuple[Path, ...]
    format: str = "auto"
    columns: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    weight: float | None = None
    max_rows: int | None = None
    measured_as: str | None = None
    media: Path | None = None
    image_pixels: int | None = None
    video: tuple[float, int, int] | None = None


def find_sets(sources: Sequence[Source], options: Data, kind: Kind | None) -> list[RowSet]:
    """Find the files of every source.

    Args:
        kind: what the method takes; a set that `data.info` describes by a lone prompt column is
            plain text for one method and questions for another. None only looks.

    Raises:
        DataError: naming the source that means nothing.
    """
    return [
        replace(
            _find_set(source, options.info, kind),
            media=options.media,
            image_pixels=options.image_pixels,
            video=(options.video_fps, options.video_frames, options.video_pixels or 0),
        )
        for source in sources
    ]


def _find_set(source: Source, info: Path | None, kind: Kind | None) -> RowSet:
    path, split = expand(source.path), source.split
    described = describe_set(source, info, kind)
    if described is not None:
        source, path = described, Path(described.path)
    if split and exists(path) and path.is_file():
        raise DataError(
            f"the split {split!r} has no effect: this is a single file",
            hint="leave split out, or name the folder of the file",
            where=str(path),
        )
    return RowSet(
        name=source.path,
        files=tuple(find_files(path, source.split)),
        format=source.format,
        columns=source.columns,
        tags=source.tags,
        weight=source.weight,
        max_rows=source.max_rows,
        measured_as=source.name if isinstance(source, HeldOut) else None,
    )


def find_files(path: Path, split: str | None = None) -> list[Path]:
    """List the data files that a path means: itself, or those of a folder, in order of names.

    Args:
        split: keep only files of this name (`train` keeps train.jsonl, train-00000.parquet and
            all in a folder train/).

    Raises:
        DataError: if there is none.
    """
    check_name(path)
    if exists(path) and path.is_file():
        return [path]
    if not exists(path) or not path.is_dir():
        raise DataError(
            "there is no such file or folder",
            hint="check the path; names of sets need data.info, the dataset_info.json they are in",
            where=str(path),
        )
    inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p, path))
    files = [p for p in inside if p.suffix.lower() in READERS and not _is_about_data(p)]
    ignored = [p.name for p in inside if p not in set(files)]
    if ignored:
        log.info("%s: not data, ignored: %s", path, ", ".join(ignored[:20]))
    if not files:
        raise DataError(
            "the folder holds no data file",
            hint=f"put files of kind {', '.join(READERS)} into it",
            where=str(path),
        )
    for file in files:
        check_name(file)
    return _take_split(files, path, split)


def check_name(path: Path) -> None:
    """Refuse a name that no text can hold, ours neither.

    Raises:
        DataError: if it is not UTF-8.
    """
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise DataError(
            "the name of the file is not UTF-8", hint="rename it", where=spell(str(path), 200)
        ) from None


def _is_about_data(path: Path) -> bool:
    """Whether a file only describes others: what repositories and saved datasets hold beside."""
    if path.name == "state.json":
        return path.with_name("dataset_info.json").exists()
    return ABOUT.match(path.name) is not None


def _hidden(path: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in path.relative_to(folder).parts)


def _take_split(files: list[Path], folder: Path, split: str | None) -> list[Path]:
    if split is None:
        held_out = [p for p in files if _is_held_out(p.relative_to(folder))]
        if held_out and len(held_out) < len(files):
            name = held_out[0].relative_to(folder)
            raise DataError(
                f"the folder holds {name} beside other files, so learning all of it would learn "
                "what is to be tested",
                hint="name the part to read, such as `{path: ..., split: train}`",
                where=str(folder),
            )
        return files
    found = [p for p in files if _is_of_split(p.relative_to(folder), split)]
    if not found:
        raise DataError(
            f"the folder holds no file of the split {split!r}",
            hint=f"it holds {', '.join(p.name for p in files[:10])}",
            where=str(folder),
        )
    return found


def _is_held_out(path: Path) -> bool:
    return any(HELD_OUT.match(part.lower()) for part in (*path.parts[:-1], path.stem))


def _is_of_split(path: Path, split: str) -> bool:
    named = re.fullmatch(rf"{re.escape(split)}([-_.]\d.*)?", path.stem) is not None
    return named or split in path.parts[:-1]
