"""Keep some of a run's own prompts, so that an export can be compared with the tuned model."""

from __future__ import annotations

from typing import Any

from tunesmith.data.prepare import Splits
from tunesmith.data.rows import Conversation, Labelled, LabelledImage, Text, split_answer
from tunesmith.data.token_rows import TokenRows
from tunesmith.data.tokens import encode
from tunesmith.inference.looked import encode_messages
from tunesmith.models.reader import AnyReader, Reader
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_json

NUM_PROBES = 16
TEXT_CHARS = 60
"""Characters of a plain text that make a prompt."""


def write_probes(run: Run, splits: Splits, reader: AnyReader) -> None:
    """Write prompts with their token ids: held-out rows first, then training rows."""
    found: list[dict[str, Any]] = []
    for rows in (splits.validation, splits.train):
        if rows is not None:
            found += _probes(rows, reader, NUM_PROBES - len(found))
    write_json(run.probes_file, found)


def _probes(rows: TokenRows, reader: AnyReader, count: int) -> list[dict[str, Any]]:
    some = range(min(count, len(rows)))
    if isinstance(reader, Reader) and not isinstance(rows.conversation(0), Labelled):
        return [probe_of(rows.conversation(row), reader) for row in some]
    return [_labelled(rows, row) for row in some]


def _labelled(rows: TokenRows, row: int) -> dict[str, Any]:
    """Keep a text that was classified, and its tokens; of an image, where it lies."""
    read = rows.conversation(row)
    if isinstance(read, LabelledImage):
        return {"image": str(read.file), "sha256": read.sha256}
    assert isinstance(read, Labelled)
    return {"text": read.text, "ids": rows[row]["input_ids"]}


def probe_of(row: Conversation | Text, reader: Reader) -> dict[str, Any]:
    """Make a prompt of a row: all before the last answer, or how a text begins."""
    if isinstance(row, Text):
        text = row.text[:TEXT_CHARS]
        return {"text": text, "ids": encode(reader.tokenizer, text)}
    assert reader.template is not None  # conversations are only read with one
    asked, _ = split_answer(row)
    messages = Conversation(asked, row.place).as_dicts()
    read = (reader.tokenizer, reader.template, reader.senses)
    found = {"messages": messages, "ids": list(encode_messages(*read, messages, row.tools))}
    return {**found, "tools": list(row.tools)} if row.tools else found
