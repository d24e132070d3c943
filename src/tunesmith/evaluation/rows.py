"""The rows to measure on: a run's held-out ones, or those of a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.data.info import describe_set
from tunesmith.data.meaning import find_meaning, meaning_for, read_set
from tunesmith.data.prepare import prepare
from tunesmith.data.reading import read_records
from tunesmith.data.report import DataReport
from tunesmith.data.rows import (
    Conversation,
    Judged,
    Kind,
    Learn,
    Place,
    Problem,
    Prompt,
    Record,
    split_answer,
)
from tunesmith.data.sources import find_sets
from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import DataError, RunError
from tunesmith.logs import logger
from tunesmith.models.reader import AnyReader
from tunesmith.recipe.data import Data, Source
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.templates import Template

log = logger(__name__)


@dataclass(frozen=True)
class Asked:
    """A question with its expected answer.

    Attributes:
        facts: spellings of what a right answer must contain; empty if the row names none.
    """

    messages: tuple[dict[str, Any], ...]
    expected: str
    facts: tuple[str, ...] = ()
    tools: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class MeasuredRows:
    """Rows as tokens, for the loss, and as questions; texts have no questions."""

    tokens: TokenRows
    asked: list[Asked]
    name: str


def held_out_rows(run: Run, learn: Learn, reader: AnyReader) -> MeasuredRows:
    """Return the rows a run held out.

    Raises:
        DataError: if it held out none.
        RunError: if its data changed since: rows it has learned would be held out now.
    """
    recipe = run.recipe()
    splits = prepare(recipe.data, learn, reader.tokenizer, reader.template, seed=recipe.run.seed)
    if splits.validation is None:
        raise DataError(
            "the run held out no rows to measure on",
            hint="name a file with --data, or train with data.validation_share",
            where="data.validation_share",
        )
    if splits.fingerprint != run.environment().get("data"):
        raise RunError(
            "the data changed since the run, so nobody knows which rows it has not seen",
            hint="put the data back, or use --data",
            where=str(run.path),
        )
    asked = _ask_all(_rows_of(splits.validation), {}, reader.template)
    return MeasuredRows(splits.validation, asked, "held-out rows")


def file_rows(
    given: Sequence[Path] | Data, recipe: Recipe, learn: Learn, reader: AnyReader
) -> MeasuredRows:
    """Return the rows of files or sets; a column `fact` holds what an answer must contain."""
    options = given if isinstance(given, Data) else _like(given, recipe, learn)
    splits = prepare(options, learn, reader.tokenizer, reader.template, seed=recipe.run.seed)
    asks = learn.kind not in ("text", "labelled", "image")
    facts = _read_facts(options) if asks else {}
    asked = _ask_all(_rows_of(splits.train), facts, reader.template)
    return MeasuredRows(splits.train, asked, spell_files(given))


def _like(paths: Sequence[Path], recipe: Recipe, learn: Learn) -> Data:
    """Read files as the rows were that a run learned from."""
    held = {"validation": (), "validation_share": 0.0, "validation_rows": None}
    options = recipe.data.model_copy(update={**held, "max_rows": None, "info": None})
    way = _written_alike(recipe.data, learn.kind)
    return options.model_copy(
        update={"train": tuple(_describe(path, way, options) for path in paths)}
    )


def questions_of(given: Sequence[Path] | Data, template: Template | None) -> list[Asked]:
    """Read the questions of files for a model whose tokens are not ours; `fact` is read too.

    Raises:
        DataError: if a row is bad, or they hold no conversations.
    """
    options = given if isinstance(given, Data) else _plain(given)
    report, found = DataReport(), []
    for rows in find_sets(options.train, options, "conversation"):
        meaning = meaning_for("conversation", find_meaning(rows, options.encoding), rows)
        read: list[Conversation] = []
        for row in read_set(rows, meaning, options.encoding, options.system):
            report.num_read += 1
            if isinstance(row, Problem):
                report.add_problem(row)
            elif isinstance(row, Conversation):
                read.append(row)
        found += read[: rows.max_rows]
    if options.on_bad_row == "stop":
        report.raise_if_bad()
    elif report.num_bad:
        log.warning("%s of %s rows are bad and left out", report.num_bad, report.num_read)
    return _ask_all(found, _read_facts(options), template)


def _plain(paths: Sequence[Path]) -> Data:
    return Data(train=tuple(Source(path=str(path)) for path in paths))


def spell_files(given: Sequence[Path] | Data) -> str:
    """Name files or sets in one line."""
    names = [source.path for source in given.train] if isinstance(given, Data) else given
    return ", ".join(map(str, names))


def _written_alike(data: Data, kind: Kind) -> Source | None:
    """Return a source that is written as all of a run's are, if there is one way."""
    try:
        sources = [describe_set(source, data.info, kind) or source for source in data.train]
    except DataError:  # the info file is gone; the files to measure on may need none
        return None
    first = sources[0]
    alike = all(
        (source.format, source.columns, source.tags) == (first.format, first.columns, first.tags)
        for source in sources
    )
    return first if alike else None


def _describe(path: Path, way: Source | None, options: Data) -> Source:
    """Describe a file as the run's own, if its rows look so."""
    source = Source(path=str(path))
    if way is None:
        return source
    named = Source(path=str(path), columns=way.columns, tags=way.tags)
    try:
        found = [find_meaning(rows, options.encoding) for rows in find_sets([named], options, None)]
    except DataError:
        return source
    told = all(meaning.format.name == way.format for meaning in found)
    return named.model_copy(update={"format": way.format}) if told else named


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


def _rows_of(rows: TokenRows) -> list[Conversation]:
    read = (rows.conversation(row) for row in range(len(rows)))
    return [row for row in read if isinstance(row, Conversation)]


def _ask_all(
    read: Sequence[Conversation], facts: Mapping[Place, tuple[str, ...]], template: Template | None
) -> list[Asked]:
    """Make questions of rows, but those whose answer is a bad one.

    A fact belongs to the last answer of its conversation.
    """
    last = {row.place: at for at, row in enumerate(read)}
    return [
        _ask(row, facts.get(row.place, ()) if last[row.place] == at else (), template)
        for at, row in enumerate(read)
        if not (isinstance(row, Judged) and not row.good)
    ]


def _ask(row: Conversation, facts: tuple[str, ...], template: Template | None) -> Asked:
    asked, expected = split_answer(row)
    before = Conversation(asked, row.place).as_dicts()
    if not isinstance(row, Prompt) and template is not None:
        last = row.messages[-1].as_dict()
        expected = last["content"]
        if "tool_calls" in last:
            expected = template.spell_answer([*before, last], row.tools)
    return Asked(tuple(before), expected, facts, row.tools)
