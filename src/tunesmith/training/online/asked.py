"""What the questions of a rollout show: for who answers, and kept as no more than their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.data.media.medium import Shows
from tunesmith.data.token_rows import TokenRows
from tunesmith.inference.looked import Looked
from tunesmith.methods.method import Row

SHOWN, QUESTION = "shown", "question"


def prompt_of(row: Row) -> list[int]:
    """Return the tokens of a question, and what it shows."""
    if SHOWN not in row:
        return list(row["input_ids"])
    shown: Shows = row[SHOWN]
    media = [replace(medium, source=medium.found_from(shown.place)) for medium in shown.media]
    return Looked(row["input_ids"], media)


def shown_by(rows: TokenRows, row: int) -> Row:
    """Return what a question shows, and its number, by which it is found again; most show none."""
    found = rows[row]
    return {SHOWN: found[SHOWN], QUESTION: row} if SHOWN in found else {}


def without_shown(rows: Sequence[Row]) -> list[Row]:
    """Leave out of rows what is no number or text."""
    return [{name: value for name, value in row.items() if name != SHOWN} for row in rows]


def with_shown(rows: Sequence[Row], questions: TokenRows) -> list[Row]:
    """Put back into rows what was left out."""
    return [
        {**row, **shown_by(questions, row[QUESTION])} if QUESTION in row else row for row in rows
    ]
