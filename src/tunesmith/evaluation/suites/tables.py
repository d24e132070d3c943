"""MMLU, C-Eval and CMMLU: a table a subject and split, in folders dev, val and test."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from tunesmith.data.reading.table import read_nameless
from tunesmith.data.rows import Record
from tunesmith.errors import DataError
from tunesmith.evaluation.suites.questions import (
    LETTERS,
    Known,
    Language,
    Question,
    Subject,
    Suite,
    check_rows,
    letter_of,
    read_rows,
    text_of,
)

SUBJECTS = Path(__file__).with_name("subjects.json")
CHOICES = LETTERS[:4]


@dataclass(frozen=True)
class Layout:
    """How a benchmark lays its tables out.

    Attributes:
        measured: the split that is asked; C-Eval publishes no answers to its test split.
        ending: what follows the subject in a file's name.
        question, answer, number: columns; a table without a line of names has no number.
    """

    name: str
    language: Language
    measured: str
    ending: str
    question: str
    answer: str
    number: str | None


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("mmlu", "en", "test", "_{split}.csv", "question", "answer", None),
        Layout("ceval", "zh", "val", "_{split}.csv", "question", "answer", "id"),
        Layout("cmmlu", "zh", "test", ".csv", "Question", "Answer", ""),
    )
}


def read_tables(name: str, folder: Path, shots: int) -> Suite:
    """Read a benchmark from the folder that holds its splits.

    Raises:
        DataError: if the folder has not the layout, a subject is unknown or lacks its examples, or
            a row is wrong.
    """
    layout = LAYOUTS[name]
    published = orjson.loads(SUBJECTS.read_bytes())[name]
    files = _find_files(layout, folder)
    subjects = [
        _read_subject(layout, file, _describe(subject, published, file), shots)
        for subject, file in files.items()
    ]
    return Suite(name, "choice", tuple(subjects), num_published=len(published))


def _find_files(layout: Layout, folder: Path) -> dict[str, Path]:
    """Find the measured tables, by subject."""
    ending = layout.ending.format(split=layout.measured)
    files = sorted((folder / layout.measured).glob(f"*{ending}"))
    if not files:
        raise DataError(
            f"no tables of {layout.name} in the folder",
            hint=f"name the folder that holds {layout.measured}/SUBJECT{ending} and dev/",
            where=str(folder),
        )
    return {path.name.removesuffix(ending): path for path in files}


def _describe(name: str, published: dict[str, Any], path: Path) -> dict[str, Any]:
    if name not in published:
        near = difflib.get_close_matches(name, published, n=1)
        raise DataError(
            f"the benchmark has no subject {name!r}",
            hint=f"did you mean {near[0]}? " if near else "remove the file",
            where=str(path),
        )
    return {"name": name, **published[name]}


def _read_subject(layout: Layout, path: Path, about: dict[str, Any], shots: int) -> Subject:
    questions = _read_table(layout, path)
    examples: tuple[Question, ...] = ()
    if shots:
        ending = layout.ending.format(split="dev")
        examples = _read_examples(layout, path.parent.parent / "dev" / f"{about['name']}{ending}")
    return Subject(
        about["name"],
        about["title"],
        tuple(about["categories"]),
        layout.language,
        questions,
        examples,
    )


def _read_examples(layout: Layout, path: Path) -> tuple[Question, ...]:
    if not path.is_file():
        raise DataError(
            "the subject has no table of examples",
            hint="put it there, or ask without examples: --shots 0",
            where=str(path),
        )
    return _read_table(layout, path)


def _read_table(layout: Layout, path: Path) -> tuple[Question, ...]:
    known = Known()
    found = []
    for row in _rows(layout, path):
        if layout.number is not None:
            known.add(row, layout.number)
        choices = tuple(text_of(row, letter) for letter in CHOICES)
        right = letter_of(row, layout.answer, len(CHOICES))
        found.append(Question(row.place, text_of(row, layout.question), choices, right))
    return tuple(found)


def _rows(layout: Layout, path: Path) -> Iterator[Record]:
    if layout.number is not None:
        return read_rows(path)
    names = [layout.question, *CHOICES, layout.answer]
    return check_rows(read_nameless(path, names), path)
