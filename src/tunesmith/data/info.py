"""LLaMA-Factory's `dataset_info.json`: sets of rows described by name.

The only place that knows its words. An entry becomes a source of ours, so that everything after
it reads one kind of description.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.data.formats import FORMATS
from tunesmith.data.formats.media import NAMES as MEDIA
from tunesmith.data.rows import Kind
from tunesmith.errors import DataError
from tunesmith.logs import logger
from tunesmith.paths import exists, expand
from tunesmith.recipe.data import Source

log = logger(__name__)
ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "cloud_file_name", "script_url")
NAMES = ("file_name", "formatting", "split", "subset", "folder", *ELSEWHERE)
KEYS = (*NAMES, "columns", "tags", "num_samples", "ranking")
COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "history": "history",
    "messages": "conversations",
    "system": "system",
    "tools": "tools",
    "chosen": "chosen",
    "rejected": "rejected",
    "kto_tag": "label",
    **MEDIA,
}
PAIRED = ("chosen", "rejected")
UNREAD = {"system", "history", "tools", *MEDIA}
"""Columns that are read only where an entry names them; if it names any, this holds for all."""
OPENAI_TAGS = {
    "role_tag": "role",
    "content_tag": "content",
    "user_tag": "user",
    "assistant_tag": "assistant",
    "observation_tag": "tool",
    "function_tag": "function_call",
}
FORMATTINGS = {"alpaca": "alpaca", "sharegpt": "sharegpt", "openai": "sharegpt"}


def describe_set(source: Source, info: Path | None, kind: Kind | None) -> Source | None:
    """Return a source with what the info file says of it.

    Args:
        source: its path may be an entry's name; what it says itself wins over the entry.
        info: the file, or the folder it lies in.
        kind: what the method takes; None only looks.

    Returns:
        None if the source is a path.

    Raises:
        DataError: if the entry is wrong, lies elsewhere than on this machine, or holds rows that
            no method learns from yet.
    """
    if info is None:
        return None
    info = expand(info)
    info = info / "dataset_info.json" if exists(info) and info.is_dir() else info
    entries = _read_info(info)
    # The recipe may have made the name a path of its own folder.
    name = source.path if source.path in entries else Path(source.path).name
    if name not in entries or (name != source.path and exists(Path(source.path))):
        if exists(expand(source.path)):
            return None
        raise DataError(
            f"there is no set {name!r}, nor a file of that name",
            hint=_suggest(name, entries, "the file describes"),
            where=str(info),
        )
    return _Entry(name, entries[name], info).as_source(source, kind)


class _Entry:
    def __init__(self, name: str, values: Any, info: Path) -> None:
        self.name, self.info = name, info
        if not isinstance(values, dict):
            raise self._error("the entry is not an object", "write {file_name: ...}")
        self.values: dict[str, Any] = values
        self._check()

    def as_source(self, source: Source, kind: Kind | None) -> Source:
        formatting = self._formatting()
        columns, tags = self._columns(), self._tags()
        written: dict[str, Any] = {"format": formatting, "columns": columns, "tags": tags}
        if formatting == "alpaca" and kind in ("text", None):
            written |= self._as_text(self._named())
        if kind in ("labelled", "image") and not self._named() and "formatting" not in self.values:
            written["format"] = "auto"  # only ours describes such rows
        if source.format != "auto":
            written["format"] = source.format
        return source.model_copy(
            update={
                **written,
                "columns": {**written["columns"], **source.columns},
                "tags": {**written["tags"], **source.tags},
                "path": str(self._path()),
                "max_rows": source.max_rows or self.values.get("num_samples"),
                "split": source.split or self.values.get("split"),
            }
        )

    def _as_text(self, named: Mapping[str, str]) -> dict[str, Any]:
        """Read plain text where the entry names a lone prompt column, or no column at all."""
        if set(named) == {"instruction"}:
            return {"format": "text", "columns": {"text": named["instruction"]}}
        return {"format": "auto"} if not named and "formatting" not in self.values else {}

    def _check(self) -> None:
        self._check_keys(self.values, KEYS, "keys")
        for key in NAMES:
            if not isinstance(self.values.get(key), str | None):
                raise self._error(f"{key} is not a name", "write a name, or leave it")
        self._check_keys(self._object("columns"), COLUMNS, "columns")
        self._check_keys(self._object("tags"), FORMATS["sharegpt"].tags, "tags")
        paired = [name for name in PAIRED if self._object("columns").get(name)]
        if paired and not self.values.get("ranking"):
            raise self._error(
                f"it names a column {paired[0]!r}, but its rows are not ranked",
                "write ranking: true, or leave the column out",
            )
        number = self.values.get("num_samples")
        if number is not None and (type(number) is not int or number < 1):
            raise self._error("num_samples is not a number above 0", "write a number, or leave it")

    def _check_keys(self, given: Iterable[str], known: Iterable[str], what: str) -> None:
        for key in given:
            if key not in known:
                raise self._error(
                    f"{key!r} is none of the {what} of an entry", _suggest(key, known, "there are")
                )

    def _object(self, key: str) -> dict[str, Any]:
        value = self.values.get(key) or {}
        if not isinstance(value, dict) or not all(
            isinstance(name, str | None) for name in value.values()
        ):
            raise self._error(f"{key} is not an object of names", "write {prompt: question}")
        return value

    def _formatting(self) -> str:
        given = self.values.get("formatting") or "alpaca"
        if given not in FORMATTINGS:
            raise self._error(
                f"the formatting {given!r} is not known", _suggest(given, FORMATTINGS, "use")
            )
        judged = "_judged" if self._object("columns").get("kto_tag") else ""
        return FORMATTINGS[given] + ("_pairs" if self.values.get("ranking") else judged)

    def _columns(self) -> dict[str, str]:
        """Name the column of each of ours; what the entry leaves out is read from none."""
        known = FORMATS[self._formatting()].columns
        for theirs in self._object("columns"):
            if COLUMNS[theirs] not in known:
                raise self._error(
                    f"the formatting {self._formatting()} has no such column as {theirs!r}",
                    "with ranking name prompt or messages, chosen and rejected"
                    if self.values.get("ranking")
                    else "set formatting to sharegpt for messages, to alpaca for the others",
                )
        named = self._named()
        needed = set(PAIRED) & set(known) if named else set(known) - UNREAD
        default = {"conversations": "messages"} if self.values.get("formatting") == "openai" else {}
        return {**dict.fromkeys(sorted(set(known) - needed), ""), **default, **named}

    def _named(self) -> dict[str, str]:
        """Return the columns that the entry names, under our names."""
        return {COLUMNS[column]: name or "" for column, name in self._object("columns").items()}

    def _tags(self) -> dict[str, str]:
        tags = {tag: name for tag, name in self._object("tags").items() if name is not None}
        if tags and self._formatting().startswith("alpaca"):
            raise self._error("tags mean nothing to alpaca rows", "set formatting to sharegpt")
        return {**OPENAI_TAGS, **tags} if self.values.get("formatting") == "openai" else tags

    def _path(self) -> Path:
        path = self._local()
        if path is None:
            raise self._elsewhere()
        for key in ("folder", "subset"):
            part = self.values.get(key)
            if part is None:
                continue
            if path.is_file():
                log.info("%s: %s %r means nothing to a single file", self.name, key, part)
            elif (path / part).is_dir():
                path = path / part
            else:
                raise self._error(f"there is no {key} {part!r} in {path}", "check its name")
        return path

    def _local(self) -> Path | None:
        """Find the set on this machine: a file, or a copy of a hub's repository."""
        for key in ("file_name", *ELSEWHERE):
            name = self.values.get(key)
            if not isinstance(name, str):
                continue
            for path in (self.info.parent / name, Path(name)):
                if exists(path):
                    return path
        return None

    def _elsewhere(self) -> DataError:
        if isinstance(self.values.get("file_name"), str):
            return self._error(
                f"there is no file {self.values['file_name']} beside the info file",
                "copy it there, or mend file_name",
            )
        key = next((key for key in ELSEWHERE if self.values.get(key)), None)
        if key is None:
            return self._error("the entry names no file", "write file_name")
        if key == "script_url":
            return self._error(
                "the set is made by a script, and code of others is never run",
                "run it elsewhere and give its rows as file_name",
            )
        return self._error(
            f"the set is not on this machine ({key}: {self.values[key]}), and nothing is "
            "downloaded",
            "download it on a machine with internet, and give the files as file_name",
        )

    def _error(self, message: str, hint: str) -> DataError:
        return DataError(message, hint=hint, where=f"{self.info}, entry {self.name}")


def _suggest(wrong: str, known: Iterable[str], introduction: str) -> str:
    names = list(known)
    near = difflib.get_close_matches(wrong, names, n=1)
    guess = f"did you mean {near[0]}? " if near else ""
    listed = ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
    return f"{guess}{introduction} {listed}"


def _read_info(info: Path) -> dict[str, Any]:
    try:
        entries = json.loads(info.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as problem:
        raise DataError(
            f"the info file is not valid JSON: {problem.msg}",
            hint="mend it",
            where=f"{info}:{problem.lineno}:{problem.colno}",
        ) from None
    except (OSError, ValueError, RecursionError) as problem:
        raise DataError(
            f"the info file cannot be read: {problem}",
            hint="set data.info to a dataset_info.json in UTF-8",
            where=str(info),
        ) from None
    if not isinstance(entries, dict):
        raise DataError(
            "the info file is not an object of entries",
            hint="write {name: {file_name: ...}}",
            where=str(info),
        )
    return entries
