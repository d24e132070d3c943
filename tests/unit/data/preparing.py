"""Prepare files as a recipe would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tunesmith.data.prepare import Splits, prepare
from tunesmith.data.report import DataReport
from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import TokenRows
from tunesmith.models.reader import Reader
from tunesmith.recipe.data import Data

SFT = Learn("conversation")
TEXT = Learn("text", prompts=True)
PACKED = Learn("text", prompts=True, pack=True)


def prepare_files(
    reader: Reader, *train: Any, learn: Learn = SFT, seed: int = 0, **options: Any
) -> Splits:
    """Prepare training files, or sources, with options of `data`."""
    sources = tuple(str(source) if isinstance(source, Path) else source for source in train)
    data = Data(train=sources, **options)
    return prepare(data, learn, reader.tokenizer, reader.template, seed=seed)


def check_counts(report: DataReport) -> None:
    """What must hold of every report."""
    assert report.num_read == report.num_kept + report.num_reported
    assert report.num_reported == report.num_bad + report.num_long
    assert len(report.problems) == min(report.num_bad, 1000) + min(report.num_long, 1000)


def spell_rows(reader: Reader, rows: TokenRows) -> list[str]:
    """Spell the tokens of each row."""
    decode = reader.tokenizer.backend_tokenizer.decode
    return [decode(rows[n]["input_ids"], skip_special_tokens=False) for n in range(len(rows))]


def spell_learned(reader: Reader, rows: TokenRows, row: int) -> str:
    """Spell the learned tokens of a row."""
    labels = [label for label in rows[row]["labels"] if label != -100]
    return str(reader.tokenizer.backend_tokenizer.decode(labels, skip_special_tokens=False))
