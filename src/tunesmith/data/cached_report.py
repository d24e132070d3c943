"""The report of a set, kept beside its tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.data.report import DataReport
from tunesmith.data.rows import Place, Problem
from tunesmith.data.sources import RowSet
from tunesmith.data.store import read_seal


def pack_report(report: DataReport, rows: RowSet) -> dict[str, Any]:
    """Write a report for the cache, with files by number: the same bytes may lie elsewhere."""
    numbers = {str(path): number for number, path in enumerate(rows.files)}
    problems = [
        [numbers[p.place.path], p.place.line, p.place.column, p.reason, p.kind]
        for p in report.problems
    ]
    return {**vars(report), "problems": problems, "files": []}


def read_report(folder: Path, rows: RowSet) -> DataReport | None:
    """Return what was counted when the tokens of a folder were made, if they are whole."""
    sealed = read_seal(folder)
    names = vars(DataReport()).keys()
    if sealed is None or not names <= sealed.keys():
        return None
    files = [str(path) for path in rows.files]
    problems = [
        Problem(Place(files[number], line, column), reason, kind)
        for number, line, column, reason, kind in sealed["problems"]
    ]
    counts = {name: sealed[name] for name in names}
    return DataReport(**{**counts, "problems": problems, "files": files})
