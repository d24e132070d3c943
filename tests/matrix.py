"""What the proofs find out about each combination of options, for the page that lists them."""

from __future__ import annotations

import json
from pathlib import Path

from tunesmith.errors import MissingPackage, TunesmithError

ROOT = Path(__file__).parents[1]
FOUND = ROOT / "build" / "matrix.json"
KNOWN = ROOT / "docs" / "reference" / "matrix.json"
RUNS = "runs"
Cells = dict[str, dict[str, dict[str, str]]]
"""What was found: by table, row and column."""


class Matrix:
    """Cells that this run of tests has tried.

    Attributes:
        found: what they say now.
        known: what they said when the page was made.
    """

    def __init__(self) -> None:
        self.found: Cells = {}
        self.known: Cells = read_cells(KNOWN)

    def note(self, table: str, row: str, column: str, said: str) -> None:
        """Note what a cell says; one that ran before must not be refused now."""
        self.found.setdefault(table, {}).setdefault(row, {})[column] = said
        before = self.known.get(table, {}).get(row, {}).get(column)
        assert said == RUNS or before != RUNS, f"{table}: {row} with {column} ran before: {said}"

    def write(self) -> None:
        """Put what was found beside what other runs of tests have found."""
        if not self.found:
            return
        FOUND.parent.mkdir(exist_ok=True)
        cells = merge_cells(read_cells(FOUND), self.found)
        FOUND.write_text(json.dumps(cells, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_cells(path: Path) -> Cells:
    """Read cells; none if there is no such file."""
    found: Cells = json.loads(path.read_text("utf-8")) if path.exists() else {}
    return found


def merge_cells(before: Cells, after: Cells) -> Cells:
    """Put newer cells in the place of older ones."""
    merged: Cells = {}
    for table in {**before, **after}:
        old, new = before.get(table, {}), after.get(table, {})
        merged[table] = {row: {**old.get(row, {}), **new.get(row, {})} for row in {**old, **new}}
    return merged


def spell(problem: TunesmithError) -> str:
    """Spell why a cell did not run."""
    if isinstance(problem, MissingPackage):
        return f"not run: {problem.message}"
    return f"refused: {problem.message}"
