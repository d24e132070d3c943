"""What a look at data found."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tunesmith.data.rows import Kind, Place, Problem


@dataclass(frozen=True)
class Lengths:
    """How long rows are: the shortest, quantiles, the longest."""

    mean: float
    shortest: int
    median: int
    p90: int
    p99: int
    longest: int


@dataclass(frozen=True)
class Finding:
    """Rows that belong together in some way.

    Attributes:
        count: how many there are.
        places: the first of them.
    """

    count: int
    places: tuple[Place, ...]

    def __str__(self) -> str:
        """Spell the count and the places."""
        return f"{self.count:,} rows: " + ", ".join(map(str, self.places))


@dataclass
class CheckReport:
    """What a set of rows holds; `num_read` is always `num_kept + num_reported`.

    Attributes:
        kind: what the rows are.
        labels: rows of each class.
        formats: format of each source by its name.
        problems: the first 1000 rows that cannot be used.
        num_empty_answers: of these, rows without an answer.
        chars: lengths in characters.
        tokens: lengths in tokens; None without a tokenizer.
        num_long: rows over `max_tokens`; 0 without a tokenizer.
        long_rows: the first of them.
        num_duplicate_rows: rows that repeat an earlier one.
        num_duplicate_answers: rows whose answer another question has too.
        num_contradictions: questions (with all that went before) that have several answers.
        num_overlap: validation rows that are training rows too.
        num_overlap_questions: validation questions that are training questions too.
        num_unoffered: rows that offer tools and call others.
        unoffered: the first of them.
        unused_columns: columns that no format reads, the first 100.
    """

    kind: Kind
    labels: dict[str, int] = field(default_factory=dict)
    formats: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    num_read: int = 0
    num_kept: int = 0
    num_reported: int = 0
    problems: list[Problem] = field(default_factory=list)
    num_empty_answers: int = 0
    chars: Lengths | None = None
    tokens: Lengths | None = None
    max_tokens: int = 0
    num_long: int = 0
    long_rows: list[Place] = field(default_factory=list)
    num_duplicate_rows: int = 0
    duplicate_rows: list[Finding] = field(default_factory=list)
    num_duplicate_answers: int = 0
    duplicate_answers: list[Finding] = field(default_factory=list)
    num_contradictions: int = 0
    contradictions: list[Finding] = field(default_factory=list)
    num_overlap: int = 0
    num_overlap_questions: int = 0
    overlap: list[Place] = field(default_factory=list)
    num_unoffered: int = 0
    unoffered: list[Place] = field(default_factory=list)
    unused_columns: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        found = dict(vars(self))
        for name in ("problems", "long_rows", "overlap", "unoffered"):
            found[name] = [str(item) for item in found[name]]
        for name in ("duplicate_rows", "duplicate_answers", "contradictions"):
            found[name] = [
                {"count": item.count, "places": [str(place) for place in item.places]}
                for item in found[name]
            ]
        for name in ("chars", "tokens"):
            found[name] = vars(found[name]) if found[name] else None
        return found
