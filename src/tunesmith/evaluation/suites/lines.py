"""AGIEval, GSM8K and files of one's own: a question a line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.rows import Record
from tunesmith.errors import DataError
from tunesmith.evaluation.suites.questions import (
    LETTERS,
    Kind,
    Known,
    Question,
    Subject,
    Suite,
    fault,
    language_of,
    letter_of,
    read_rows,
    text_of,
)

IN_BRACKETS = re.compile(r"\s*[(（]\s*[A-Z]\s*[)）]\s*")
SEVERAL = "several right answers"
NO_CHOICES = "no choices"


def read_agieval(folder: Path, shots: int) -> Suite:
    """Read AGIEval from the folder that holds its files, one a subject.

    Questions with several right answers or without choices are left out, and counted.

    Raises:
        DataError: if there is none, or a row is wrong.
    """
    if shots:
        raise DataError(
            "the files of agieval hold no examples to show",
            hint="leave --shots away",
            where="--shots",
        )
    files = sorted(folder.glob("*.jsonl"))
    if not files:
        raise DataError(
            "no files of agieval in the folder",
            hint="name the folder that holds SUBJECT.jsonl, data/v1 or data/v1_1 of its archive",
            where=str(folder),
        )
    left_out: Counter[str] = Counter()
    subjects = [_agieval_subject(path, left_out) for path in files]
    kept = tuple(subject for subject in subjects if subject.questions)
    if not kept:
        raise DataError(
            "no question in the folder can be chosen by its likelihood",
            hint="put the files of single choices there",
            where=str(folder),
        )
    return Suite("agieval", "choice", kept, left_out=dict(left_out))


def _agieval_subject(path: Path, left_out: Counter[str]) -> Subject:
    found = []
    for row in read_rows(path):
        options, label = row.fields.get("options"), row.fields.get("label")
        if not options:
            left_out[NO_CHOICES] += 1
        elif isinstance(label, list) or (isinstance(label, str) and len(label.strip()) > 1):
            left_out[SEVERAL] += 1
        else:
            found.append(_agieval_question(row))
    return Subject(path.stem, "", (), language_of(found), tuple(found))


def _agieval_question(row: Record) -> Question:
    choices = strip_letters(_choices_of(row, "options"))
    passage = row.fields.get("passage")
    before = f"{passage.strip()}\n" if isinstance(passage, str) and passage.strip() else ""
    right = letter_of(row, "label", len(choices))
    return Question(row.place, before + text_of(row, "question"), choices, right)


def strip_letters(options: Sequence[str]) -> tuple[str, ...]:
    """Take away the letters that options begin with, however they are written.

    A letter with nothing but a space behind it is one only where every option begins with its own.
    """
    marked = [
        IN_BRACKETS.match(option) or re.match(rf"\s*{letter}\s*[.．。、:：,]\s*", option)
        for option, letter in zip(options, LETTERS, strict=False)
    ]
    if not any(marked):
        bare = [
            re.match(rf"\s*{letter}\s+", option)
            for option, letter in zip(options, LETTERS, strict=False)
        ]
        marked = bare if all(bare) else marked
    stripped = [
        option[found.end() :].strip() if found else option.strip()
        for option, found in zip(options, marked, strict=True)
    ]
    return tuple(text or option.strip() for text, option in zip(stripped, options, strict=True))


def read_gsm8k(folder: Path, shots: int) -> Suite:
    """Read GSM8K's test.jsonl; examples come from train.jsonl beside it.

    Raises:
        DataError: if a file is missing, or an answer has no number after ####.
    """
    asked, shown = folder / "test.jsonl", folder / "train.jsonl"
    for path, needed in ((asked, True), (shown, shots > 0)):
        if needed and not path.is_file():
            raise DataError(
                "the file is not there",
                hint="name the folder that holds test.jsonl and, for --shots, train.jsonl",
                where=str(path),
            )
    examples = _gsm8k_questions(shown) if shots else ()
    subject = Subject("gsm8k", "", (), "en", _gsm8k_questions(asked), examples)
    return Suite("gsm8k", "number", (subject,))


def _gsm8k_questions(path: Path) -> tuple[Question, ...]:
    found = []
    for row in read_rows(path):
        answer = re.sub(r"<<.*?>>", "", text_of(row, "answer"))
        if not re.search(r"####\s*[-\d$]", answer):
            raise fault(row, "answer", "has no number after ####", "add it")
        found.append(Question(row.place, text_of(row, "question"), (), answer))
    return tuple(found)


@dataclass(frozen=True)
class _Own:
    """A row of a file of one's own."""

    subject: str
    is_example: bool
    question: Question


def read_own(path: Path, shots: int) -> Suite:
    """Read a file of one's own: question, answer, and maybe choices, subject, id, split.

    Raises:
        DataError: if some rows have choices or a subject and others not, or a row is wrong.
    """
    known = Known()
    rows: list[_Own] = []
    first: Record | None = None
    for row in read_rows(path):
        first = first or row
        known.add(row, "id")
        for column in ("choices", "subject"):
            if (column in row.fields) != (column in first.fields):
                what = "is missing" if column in first.fields else "stands here"
                raise fault(
                    row,
                    column,
                    f"{what}, other than in line {first.place.line}",
                    "give it to every row of the file, or to none",
                )
        rows.append(_own_row(row, path.stem))
    kind: Kind = "choice" if first and "choices" in first.fields else "text"
    names = dict.fromkeys(row.subject for row in rows)
    subjects = tuple(_own_subject(name, rows, titled=len(names) > 1) for name in names)
    for subject in subjects:
        if not subject.questions:
            raise DataError(
                f"the subject {subject.name!r} has examples and no question",
                hint="leave `split` away where a row is to be asked",
                where=str(path),
            )
    return Suite(path.stem, kind, subjects)


def _own_subject(name: str, rows: Sequence[_Own], *, titled: bool) -> Subject:
    asked = tuple(row.question for row in rows if row.subject == name and not row.is_example)
    shown = tuple(row.question for row in rows if row.subject == name and row.is_example)
    return Subject(name, name if titled else "", (), language_of(asked + shown), asked, shown)


def _own_row(row: Record, stem: str) -> _Own:
    split = row.fields.get("split", "test")
    if split not in ("dev", "test"):
        raise fault(row, "split", f"is {split!r}", "write dev for an example, or leave it away")
    subject = text_of(row, "subject") if "subject" in row.fields else stem
    text, answer = text_of(row, "question"), row.fields.get("answer")
    choices: tuple[str, ...] = ()
    if "choices" in row.fields:
        choices = _choices_of(row, "choices")
        answer = _own_letter(row, len(choices))
    elif isinstance(answer, int | float) and not isinstance(answer, bool):
        answer = str(answer)
    else:
        answer = text_of(row, "answer")
    return _Own(subject, split == "dev", Question(row.place, text, choices, answer))


def _own_letter(row: Record, num_choices: int) -> str:
    answer = row.fields.get("answer")
    if isinstance(answer, int) and not isinstance(answer, bool):
        if 0 <= answer < num_choices:
            return LETTERS[answer]
        raise fault(
            row, "answer", f"is {answer}", f"write 0 to {num_choices - 1}, or the choice's letter"
        )
    return letter_of(row, "answer", num_choices)


def _choices_of(row: Record, column: str) -> tuple[str, ...]:
    found = row.fields.get(column)
    texts = (
        [one.strip() for one in found if isinstance(one, str)] if isinstance(found, list) else []
    )
    if isinstance(found, list) and len(texts) == len(found) and all(texts):
        if 2 <= len(texts) <= len(LETTERS):
            return tuple(texts)
        raise fault(row, column, f"has {len(texts)} choices", f"write 2 to {len(LETTERS)}")
    raise fault(row, column, "is no list of texts", 'write ["one", "another"]')
