"""Look at data before it is learned: counts, lengths, repetitions and contradictions."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tunesmith.data.check_report import CheckReport, Lengths
from tunesmith.data.labelled import look_into
from tunesmith.data.meaning import Meaning, find_meaning, meaning_for
from tunesmith.data.progress import track
from tunesmith.data.reading import read_records
from tunesmith.data.render import render_conversation
from tunesmith.data.repetitions import SHOWN, Repetitions
from tunesmith.data.report import MAX_PROBLEMS, NOTHING_LEARNED
from tunesmith.data.rows import (
    Labelled,
    LabelledImage,
    Learn,
    Problem,
    Prompt,
    Record,
    Row,
    Text,
    count_chars,
    spell,
)
from tunesmith.data.sources import RowSet, find_sets
from tunesmith.data.tokenizing import Tokenizing
from tunesmith.data.tokens import encode_labelled, encode_rows, encode_texts
from tunesmith.errors import DataError
from tunesmith.recipe.data import Data, Source
from tunesmith.recipe.section import MOST
from tunesmith.templates import Piece, Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

BATCH = 256
Rendered = tuple[Row, Sequence[Piece]]


def check(
    data: Data | Path | str,
    tokenizer: PreTrainedTokenizerFast | None = None,
    template: Template | None = None,
    learn: Learn | None = None,
) -> CheckReport:
    """Read every row of a file, or of a recipe's data, and report what it holds.

    Bad rows are reported, never raised.

    Args:
        tokenizer: measures lengths in tokens too.
        template: adds what it writes around the messages to these lengths.
        learn: what the recipe's method learns; None looks at any rows, all of one kind.

    Raises:
        DataError: if there is no file, no row, a format that is not known, or rows of a kind that
            is not learned.
    """
    options = data if isinstance(data, Data) else Data(train=(Source(path=str(data)),))
    return _Check(options, tokenizer, template, learn).run()


class _Check:
    def __init__(
        self,
        options: Data,
        tokenizer: PreTrainedTokenizerFast | None,
        template: Template | None,
        learn: Learn | None,
    ) -> None:
        self._options, self._learn = options, learn or Learn("conversation")
        self._kind = learn.kind if learn else None
        self._tokenizer, self._template = tokenizer, template
        self._report = CheckReport("text", max_tokens=options.max_tokens)
        self._chars, self._tokens = array("q"), array("q")
        self._unused: dict[str, None] = {}

    def run(self) -> CheckReport:
        report = self._report
        learned = self._read(self._options.train)
        measured = self._read(self._options.validation)
        report.chars, report.tokens = _measure(self._chars), _measure(self._tokens)
        report.num_duplicate_rows, report.duplicate_rows = learned.duplicate_rows()
        if report.kind == "conversation":
            report.num_duplicate_answers, report.duplicate_answers = learned.duplicate_answers()
        if report.kind in ("conversation", "labelled", "image"):
            report.num_contradictions, report.contradictions = learned.contradictions()
        report.num_overlap, report.num_overlap_questions, report.overlap = learned.overlap(measured)
        if report.kind == "text":
            report.num_overlap_questions = 0
        report.unused_columns = list(self._unused)
        return report

    def _read(self, sources: Sequence[Source]) -> Repetitions:
        """Read some sources to their end."""
        seen = Repetitions()
        for rows in find_sets(sources, self._options, self._kind):
            meaning = find_meaning(rows, self._options.encoding)
            self._kind = self._kind or meaning.format.kind
            meaning = meaning_for(self._kind, meaning, rows)
            self._report.kind = self._kind
            formats = dict.fromkeys(meaning.of(path).format.name for path in rows.files)
            self._report.formats[rows.name] = ", ".join(formats)
            self._report.files += [str(path) for path in rows.files]
            before = self._report.num_read
            good = track(self._good_rows(rows, meaning), f"reading {rows.name}")
            while batch := list(islice(good, BATCH)):
                for row, _ in batch:
                    seen.add(row)
                    self._look_at(row)
                self._count_tokens(batch)
            if self._report.num_read == before:
                raise DataError(
                    "there are no rows", hint="give a file that holds some", where=rows.name
                )
        return seen

    def _good_rows(self, rows: RowSet, meaning: Meaning) -> Iterator[Rendered]:
        for path in rows.files:
            own = meaning.of(path)
            for record in read_records(path, self._options.encoding):
                self._report.num_read += 1
                found = record if isinstance(record, Problem) else self._good_row(record, own)
                if isinstance(found, Problem):
                    self._add_problem(found)
                else:
                    self._report.num_kept += 1
                    yield found

    def _good_row(self, record: Record, meaning: Meaning) -> Rendered | Problem:
        for name in record.fields:
            if name not in meaning.columns.values() and len(self._unused) < SHOWN:
                self._unused[spell(name)] = None
        row = meaning.read(record, self._options.system)
        if isinstance(row, LabelledImage):
            row = look_into(row)
        if isinstance(row, Problem):
            return row
        pieces = self._render(row)
        return pieces if isinstance(pieces, Problem) else (row, pieces)

    def _render(self, row: Row) -> Sequence[Piece] | Problem:
        """Return the longest text that the row gives."""
        if isinstance(row, Text):
            return [Piece(row.text, True)]
        if self._template is None or self._tokenizer is None:
            return [Piece(message.spell(), False) for message in row.messages]
        how = Tokenizing(self._options, self._learn, self._tokenizer, self._template, seed=0)
        rendered = render_conversation(row, how)
        if isinstance(rendered, Problem):
            return rendered
        learned = any(piece.learned for _, pieces in rendered for piece in pieces)
        if not learned and not isinstance(row, Prompt):
            return Problem(row.place, NOTHING_LEARNED)
        return max((pieces for _, pieces in rendered), key=_count_rendered)

    def _add_problem(self, problem: Problem) -> None:
        self._report.num_reported += 1
        self._report.num_empty_answers += "the answer" in problem.reason and (
            "is empty" in problem.reason
        )
        if len(self._report.problems) < MAX_PROBLEMS:
            self._report.problems.append(problem)

    def _look_at(self, row: Row) -> None:
        """Count what a row holds beside tokens."""
        if not isinstance(row, LabelledImage):
            self._chars.append(count_chars(row))
        if isinstance(row, Labelled):
            self._report.labels[row.label] = self._report.labels.get(row.label, 0) + 1
        self._look_at_calls(row)

    def _look_at_calls(self, row: Row) -> None:
        """Note a row that calls what it does not offer; one that offers nothing may call all."""
        if isinstance(row, Text) or not row.tools:
            return
        offered = {tool["function"]["name"] for tool in row.tools}
        called = {call.name for message in row.messages for call in message.calls}
        if called - offered:
            self._report.num_unoffered += 1
            if len(self._report.unoffered) < SHOWN:
                self._report.unoffered.append(row.place)

    def _count_tokens(self, batch: Sequence[Rendered]) -> None:
        if self._tokenizer is None or self._report.kind == "image":
            return
        for (row, _), length in zip(batch, self._lengths(batch, self._tokenizer), strict=True):
            self._tokens.append(length)
            if length > self._options.max_tokens and not _is_plain(row):
                self._report.num_long += 1
                if len(self._report.long_rows) < SHOWN:
                    self._report.long_rows.append(row.place)

    @staticmethod
    def _lengths(batch: Sequence[Rendered], tokenizer: PreTrainedTokenizerFast) -> list[int]:
        texts = [row.text for row, _ in batch if isinstance(row, Text)]
        if texts and isinstance(batch[0][0], Labelled):
            return [len(row.ids) for row in encode_labelled(tokenizer, texts, MOST)]
        if texts:
            return [len(row.ids) for row in encode_texts(tokenizer, texts)]
        return [len(row.ids) for row in encode_rows(tokenizer, [pieces for _, pieces in batch])]


def _is_plain(row: Row) -> bool:
    """Whether a row is a text that is parted, however long it is."""
    return isinstance(row, Text) and not isinstance(row, Labelled)


def _count_rendered(pieces: Sequence[Piece]) -> int:
    return sum(len(piece.text) for piece in pieces)


def _measure(lengths: array[int]) -> Lengths | None:
    if not lengths:
        return None
    values = np.frombuffer(lengths, dtype=np.int64)
    median, p90, p99 = (int(q) for q in np.percentile(values, (50, 90, 99)))
    return Lengths(float(values.mean()), int(values.min()), median, p90, p99, int(values.max()))
