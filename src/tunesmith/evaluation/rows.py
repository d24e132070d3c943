"""The rows to measure on: a run's held-out ones, or those of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.meaning import check_kind, find_meaning
from tunesmith.data.prepare import prepare
from tunesmith.data.reading import read_records
from tunesmith.data.rows import Conversation, Learn, Problem
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
    rows = [splits.validation.conversation(row) for row in range(len(splits.validation))]
    asked = [_ask(row) for row in rows if isinstance(row, Conversation)]
    return MeasuredRows(splits.validation, asked, "held-out rows")


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
    asked = _read_asked(options, learn) if learn.kind == "conversation" else []
    return MeasuredRows(splits.train, asked, ", ".join(map(str, paths)))


def _read_asked(options: Data, learn: Learn) -> list[Asked]:
    found: list[Asked] = []
    for rows in find_sets(options.train, options, learn.kind):
        meaning = find_meaning(rows, options.encoding)
        check_kind(meaning, rows, learn.kind)
        for path in rows.files:
            for record in read_records(path, options.encoding):
                if isinstance(record, Problem):
                    continue  # prepare has reported it, and stopped if the recipe says so
                row = meaning.read(record, options.system)
                if isinstance(row, Conversation):
                    found.append(_ask(row, record.fields.get("fact")))
    return found


def _ask(row: Conversation, fact: object = None) -> Asked:
    *before, last = row.as_dicts()
    facts = fact if isinstance(fact, list) else [fact] if fact else []
    return Asked(tuple(before), last["content"], tuple(map(str, facts)))
