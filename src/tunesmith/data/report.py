"""What became of every row that was read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.rows import Problem
from tunesmith.errors import DataError

NOTHING_LEARNED = (
    "nothing of it is learned: the chat template marks no answer, or all weigh nothing"
)
MAX_PROBLEMS = 1000
SHOWN = 5


@dataclass
class DataReport:
    """Counts of rows and tokens; `num_read` is always `num_kept + num_reported`.

    Attributes:
        num_kept: rows that can be learned; `max_rows` may leave some of them unused.
        num_reported: rows that cannot, or that the recipe asked to leave out.
        num_bad: of these, the ones that are wrong.
        num_long: of these, the ones left out for their length.
        problems: the first 1000 bad ones and the first 1000 long ones.
        num_cut: rows that were cut to `max_tokens`.
        num_overlap: validation rows left out because they are training rows too.
        num_split: conversations that became one row per answer.
        num_train: rows of tokens to learn from.
        num_validation: rows of tokens held out.
        num_tokens: tokens of the training rows.
        num_learned: of these, the learned ones.
        files: the files read.
    """

    num_read: int = 0
    num_kept: int = 0
    num_reported: int = 0
    num_bad: int = 0
    num_long: int = 0
    problems: list[Problem] = field(default_factory=list)
    num_cut: int = 0
    num_overlap: int = 0
    num_split: int = 0
    num_train: int = 0
    num_validation: int = 0
    num_tokens: int = 0
    num_learned: int = 0
    files: list[str] = field(default_factory=list)

    def add_problem(self, problem: Problem) -> None:
        """Count a row that is not used."""
        self.num_reported += 1
        self.num_bad += problem.kind == "bad"
        self.num_long += problem.kind == "long"
        if (self.num_bad if problem.kind == "bad" else self.num_long) <= MAX_PROBLEMS:
            self.problems.append(problem)

    def add(self, other: DataReport) -> None:
        """Add what was counted in another set."""
        self.num_read += other.num_read
        self.num_kept += other.num_kept
        self.num_reported += other.num_reported
        self.num_bad += other.num_bad
        self.num_long += other.num_long
        self.problems = _first_of_each_kind([*self.problems, *other.problems])
        self.num_cut += other.num_cut
        self.num_split += other.num_split
        self.files += other.files

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it; problems as `file:line:column: reason`."""
        return {**vars(self), "problems": [str(problem) for problem in self.problems]}

    def raise_if_bad(self) -> None:
        """Refuse to go on with bad rows.

        Raises:
            DataError: with their number, the first ones, and how to keep the good ones.
        """
        if self.num_bad:
            others = self.num_read - self.num_bad
            skip = f", or write `data.on_bad_row: skip` to learn the other {others:,}"
            raise self._refusal(
                "bad",
                f"{self.num_bad:,} of {self.num_read:,} rows are bad",
                f"mend them{skip if others else ''}",
            )

    def raise_if_long(self) -> None:
        """Refuse to go on with rows over the limit of length.

        Raises:
            DataError: with their number, the first ones, and what else can be done with them.
        """
        if self.num_long:
            raise self._refusal(
                "long",
                f"{self.num_long:,} of {self.num_read:,} rows are over data.max_tokens",
                "raise data.max_tokens, or write `data.on_long_row: cut` or skip",
            )

    def _refusal(self, kind: str, message: str, hint: str) -> DataError:
        named = [problem for problem in self.problems if problem.kind == kind]
        total = self.num_bad if kind == "bad" else self.num_long
        lines = [f"  {problem}" for problem in named[:SHOWN]]
        if total > len(lines):
            lines.append(f"  and {total - len(lines):,} more")
        where = str(named[0].place) if named else ""
        return DataError("\n".join([f"{message}:", *lines]), hint=hint, where=where)


def _first_of_each_kind(problems: Sequence[Problem]) -> list[Problem]:
    left = dict.fromkeys(("bad", "long"), MAX_PROBLEMS)
    kept: list[Problem] = []
    for problem in problems:
        left[problem.kind] -= 1
        if left[problem.kind] >= 0:
            kept.append(problem)
    return kept
