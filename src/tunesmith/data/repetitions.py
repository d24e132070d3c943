"""Find rows that repeat or contradict each other, in 40 bytes of memory a row."""

from __future__ import annotations

import hashlib
import json
from array import array

import numpy as np

from tunesmith.data.check_report import Finding
from tunesmith.data.rows import (
    Conversation,
    Judged,
    Labelled,
    LabelledImage,
    Place,
    Preference,
    Text,
    media_of,
    split_answer,
)
from tunesmith.data.store import Ints

SHOWN = 100
SHOWN_PLACES = 5


class Repetitions:
    """Hashes of questions and answers, with the place of each.

    Two texts count as equal if they are so but for space around them. 64 bits of hash mistake one
    pair of a billion rows' worth of pairs for equal at most.
    """

    def __init__(self) -> None:
        self._paths: dict[str, int] = {}
        self._rows = {name: array("q") for name in ("question", "answer", "file", "line", "column")}

    def add(self, row: Conversation | Text) -> None:
        """Remember a row."""
        if isinstance(row, Labelled):
            same = row.sha256 if isinstance(row, LabelledImage) else row.text.strip()
            question, answer = same, row.label
        elif isinstance(row, Text):
            question, answer = "", row.text.strip()
        else:
            asked, answer = split_answer(row)
            spoken = [f"{message.role}:{message.spell().strip()}" for message in asked]
            tools = [json.dumps(row.tools)] if row.tools else []
            shown = [medium.sha256 for medium in media_of(row)]
            question, answer = "\x00".join([*tools, *shown, *spoken]), answer.strip()
        if isinstance(row, Preference):
            answer += f"\x00{row.rejected.spell().strip()}"
        if isinstance(row, Judged):
            answer += f"\x00{row.good}"
        file = self._paths.setdefault(row.place.path, len(self._paths))
        values = (_hash(question), _hash(answer), file, row.place.line, row.place.column)
        for column, value in zip(self._rows.values(), values, strict=True):
            column.append(value)

    def duplicate_rows(self) -> tuple[int, list[Finding]]:
        """Count rows that repeat an earlier one, and list groups of equal rows."""
        groups = self._groups(self._whole())
        return sum(len(group) - 1 for group in groups), self._findings(groups)

    def duplicate_answers(self) -> tuple[int, list[Finding]]:
        """Count rows whose answer another question has too, and list the groups."""
        groups = self._groups_of_different("answer", "question")
        return sum(len(group) for group in groups), self._findings(groups)

    def contradictions(self) -> tuple[int, list[Finding]]:
        """Count questions that have several answers, and list their rows."""
        groups = self._groups_of_different("question", "answer")
        return len(groups), self._findings(groups)

    def overlap(self, other: Repetitions) -> tuple[int, int, list[Place]]:
        """Count rows of another set that are here too, questions that are, and list the rows."""
        equal = np.flatnonzero(np.isin(other._whole(), self._whole()))
        asked = np.isin(other._column("question"), self._column("question"))
        return len(equal), int(asked.sum()), [other._place(row) for row in equal[:SHOWN]]

    def _column(self, name: str) -> Ints:
        return np.frombuffer(self._rows[name], dtype=np.int64)

    def _whole(self) -> Ints:
        mixed: Ints = self._column("question") * np.int64(1_000_003) ^ self._column("answer")
        return mixed

    def _groups(self, keys: Ints) -> list[Ints]:
        """Return the row numbers of each key that stands more than once, largest group first."""
        order = np.argsort(keys, kind="stable")
        edges = np.flatnonzero(np.diff(keys[order])) + 1
        groups = [group for group in np.split(order, edges) if len(group) > 1]
        return sorted(groups, key=lambda group: (-len(group), int(group[0])))

    def _groups_of_different(self, same: str, other: str) -> list[Ints]:
        values = self._column(other)
        groups = self._groups(self._column(same))
        return [group for group in groups if (values[group] != values[group[0]]).any()]

    def _findings(self, groups: list[Ints]) -> list[Finding]:
        return [
            Finding(len(group), tuple(self._place(row) for row in group[:SHOWN_PLACES]))
            for group in groups[:SHOWN]
        ]

    def _place(self, row: int) -> Place:
        path = list(self._paths)[self._rows["file"][row]]
        return Place(path, self._rows["line"][row], self._rows["column"][row])


def _hash(text: str) -> int:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
