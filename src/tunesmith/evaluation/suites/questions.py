"""The questions of a benchmark, by subject, and how its rows are read."""

from __future__ import annotations

import string
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.data.reading import read_records
from tunesmith.data.rows import Place, Problem, Record, spell
from tunesmith.errors import DataError
from tunesmith.evaluation.metrics import CHINESE

Language = Literal["en", "zh"]
Kind = Literal["choice", "number", "text"]
LETTERS = string.ascii_uppercase


@dataclass(frozen=True)
class Question:
    """A question with its right answer.

    Attributes:
        choices: what one chooses from; empty where the answer is written.
        answer: the letter of the right choice, or the answer in full.
    """

    place: Place
    text: str
    choices: tuple[str, ...]
    answer: str

    @property
    def right(self) -> int:
        """Which choice is right, counted from 0."""
        return LETTERS.index(self.answer)


@dataclass(frozen=True)
class Subject:
    """The questions of a subject.

    Attributes:
        title: what prompts call it; empty if it has no name in their language.
        categories: groups of subjects that it counts for.
        examples: questions whose answers a prompt may show.
    """

    name: str
    title: str
    categories: tuple[str, ...]
    language: Language
    questions: tuple[Question, ...]
    examples: tuple[Question, ...] = ()


@dataclass(frozen=True)
class Suite:
    """A benchmark as its files hold it.

    Attributes:
        kind: whether answers are chosen, or written and compared as numbers or as texts.
        num_published: subjects that the whole benchmark has; 0 if nobody can know.
        left_out: questions that cannot be measured, by the reason.
    """

    name: str
    kind: Kind
    subjects: tuple[Subject, ...]
    num_published: int = 0
    left_out: Mapping[str, int] = field(default_factory=dict)


def read_rows(path: Path) -> Iterator[Record]:
    """Read the rows of a file.

    Raises:
        DataError: at the first row that cannot be read, and if there is none.
    """
    yield from check_rows(read_records(path), path)


def check_rows(found: Iterator[Record | Problem], path: Path) -> Iterator[Record]:
    """Hand on rows.

    Raises:
        DataError: at the first that cannot be read, and if there is none.
    """
    is_empty = True
    for row in found:
        if isinstance(row, Problem):
            raise DataError(
                row.reason, hint="mend the row, or take the file anew", where=str(row.place)
            )
        is_empty = False
        yield row
    if is_empty:
        raise DataError("the file holds no rows", hint="take it anew", where=str(path))


def text_of(row: Record, column: str) -> str:
    """Return a text of a row.

    Raises:
        DataError: if it is missing, empty or none.
    """
    value = row.fields.get(column)
    if isinstance(value, str) and value.strip():
        return value.strip()
    what = "is empty" if value in ("", None) or isinstance(value, str) else "is no text"
    if column not in row.fields:
        what = "is missing"
    raise fault(row, column, what, "every question needs it")


def letter_of(row: Record, column: str, num_choices: int) -> str:
    """Return the letter of the right choice.

    Raises:
        DataError: if it is none of the choices.
    """
    letter = text_of(row, column).upper()
    last = LETTERS[num_choices - 1]
    if letter in [*LETTERS[:num_choices]]:
        return letter
    raise fault(row, column, f"is {spell(letter)!r}", f"it must be a letter from A to {last}")


def fault(row: Record, column: str, what: str, hint: str) -> DataError:
    """Say what is wrong with a column of a row."""
    name = f"`{column}`" if column else "without a name"
    return DataError(f"the column {name} {what}", hint=hint, where=str(row.place))


class Known:
    """What was seen so far, to find what stands twice."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}

    def add(self, row: Record, column: str) -> None:
        """Remember the id of a row, if it has one.

        Raises:
            DataError: if an earlier row has it.
        """
        value = row.fields.get(column)
        if value in ("", None):
            return
        earlier = self._places.setdefault(str(value), row.place)
        if earlier is not row.place:
            raise fault(
                row,
                column,
                f"is {spell(str(value))!r}, as in line {earlier.line}",
                "give each question an id of its own, or remove one of the two",
            )


def language_of(questions: Sequence[Question]) -> Language:
    """Tell the language of most questions."""
    chinese = sum(CHINESE.search(question.text) is not None for question in questions)
    return "zh" if 2 * chinese > len(questions) else "en"
