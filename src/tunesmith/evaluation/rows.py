"""The rows to measure on: a run's held-out ones, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.prepare import prepare
from tunesmith.data.reading import read_records
from tunesmith.data.rows import Conversation, Learn, Place, Record
from tunesmith.data.sources import find_sets
from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import DataError
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data, Source
from tunesmith.recipe.options import Recipe


@dataclass(frozen=True)
class Asked:
    """A question with its expected answer.

    Attributes:
        facts: spellings of what a right answer must contain; empty if the row names none.
    """

    messages: tuple[dict[str, str], ...]
    expected: str
    facts: tuple[str, ...] = ()


@dataclass(frozen=True)
class MeasuredRows:
    """Rows as tokens, for the loss, and as questions; texts have no questions."""

    tokens: TokenRows
    asked: list[Asked]
    name: str


def held_out_rows(recipe: Recipe, learn: Learn, reader: Reader) -> MeasuredRows:
    """Return the rows a run held out.

    Raises:
        DataError: if it held out none.
    """
    splits = prepare(recipe.data, learn, reader.tokenizer, reader.template, seed=recipe.run.seed)
    if splits.validation is None:
        raise DataError(
            "the run held out no rows to measure on",
            hint="name a file with --data, or train with data.validation_share",
            where="data.validation_share",
        )
    return MeasuredRows(splits.validation, _ask_all(splits.validation, {}), "held-out rows")


def file_rows(paths: Sequence[Path], recipe: Recipe, learn: Learn, reader: Reader) -> MeasuredRows:
    """Return the rows of files; a column `fact` holds what an answer must contain."""
    options = recipe.data.model_copy(
        update={
            "train": tuple(Source(path=str(path)) for path in paths),
            "validation": (),
            "validation_share": 0.0,
            "max_rows": None,
            "info": None,
        }
    )
    splits = prepare(options, learn, reader.tokenizer, reader.template, seed=recipe.run.seed)
    facts = _read_facts(options) if learn.kind == "conversation" else {}
    return MeasuredRows(splits.train, _ask_all(splits.train, facts), ", ".join(map(str, paths)))


def _read_facts(options: Data) -> dict[Place, tuple[str, ...]]:
    """Read the column `fact`, by the places of the rows."""
    found: dict[Place, tuple[str, ...]] = {}
    for rows in find_sets(options.train, options, "conversation"):
        for path in rows.files:
            for record in read_records(path, options.encoding):
                if isinstance(record, Record) and (fact := record.fields.get("fact")):
                    facts = fact if isinstance(fact, list) else [fact]
                    found[record.place] = tuple(map(str, facts))
    return found


def _ask_all(rows: TokenRows, facts: Mapping[Place, tuple[str, ...]]) -> list[Asked]:
    """Make questions of rows; a fact belongs to the last answer of its conversation."""
    read = [rows.conversation(row) for row in range(len(rows))]
    last = {row.place: at for at, row in enumerate(read)}
    return [
        _ask(row, facts.get(row.place, ()) if last[row.place] == at else ())
        for at, row in enumerate(read)
        if isinstance(row, Conversation)
    ]


def _ask(row: Conversation, facts: tuple[str, ...]) -> Asked:
    *before, last = row.as_dicts()
    return Asked(tuple(before), last["content"], facts)
