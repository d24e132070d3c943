"""The file of a run's scores: what one evaluation writes, another one keeps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson

from tunesmith.errors import RunError
from tunesmith.models.chat import Subject
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_json

SUITES = "suites"


def keep_scores(run: Run, subject: Subject, scores: dict[str, Any]) -> None:
    """Write what a model reached on rows, beside the benchmarks that are there."""
    path = _path(run, subject)
    suites = _read(path).get(SUITES)
    write_json(path, scores | ({SUITES: suites} if suites else {}))


def keep_suite(run: Run, subject: Subject, label: str, scores: dict[str, Any]) -> None:
    """Write what a model reached on a benchmark, beside all that is there."""
    path = _path(run, subject)
    kept = _read(path)
    write_json(path, kept | {SUITES: kept.get(SUITES, {}) | {label: scores}})


def _path(run: Run, subject: Subject) -> Path:
    """Name the file: a checkpoint has one of its own, such as `scores-step-000100.json`."""
    _, _, checkpoint = subject.name.partition("/")
    return run.path / f"scores-{checkpoint}.json" if checkpoint else run.scores_file


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        kept = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as problem:
        raise RunError(
            f"the scores kept so far cannot be read: {problem}",
            hint="mend the file, or delete it and measure again",
            where=str(path),
        ) from None
    return kept if isinstance(kept, dict) else {}
