"""The labels of rows, and their numbers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from tunesmith.data.prepare import Splits
from tunesmith.data.rows import Labelled, spell
from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import DataError, RecipeError

NUMBER = re.compile("-?[0-9]{1,100}")


def find_labels(rows: TokenRows) -> tuple[str, ...]:
    """List the labels that rows have: numbers by size, others by letters."""
    return tuple(sorted({row.label for row in _read(rows)}, key=_order))


def _order(label: str) -> tuple[bool, int, str]:
    number = NUMBER.fullmatch(label)
    return not number, int(label) if number else 0, label


def number_labels(rows: TokenRows, labels: Sequence[str]) -> TokenRows:
    """Let each row carry the number of its label.

    Raises:
        DataError: if a row has another one.
    """
    numbers = {label: number for number, label in enumerate(labels)}
    found = np.empty(len(rows))
    for at, row in enumerate(_read(rows)):
        if row.label not in numbers:
            raise DataError(
                f"the label '{spell(row.label)}' is none of the {len(labels)} that are learned",
                hint=f"these are {', '.join(map(spell, labels[:10]))}; mend the row, or name all "
                "in method.labels",
                where=str(row.place),
            )
        found[at] = numbers[row.label]
    return rows.beside(label=found)


def weigh_labels(
    rows: TokenRows, labels: Sequence[str], weights: Mapping[str, float] | None
) -> TokenRows:
    """Let each row carry how much it counts.

    Args:
        weights: by label, 1 if not named; None for so much that all labels that there are count
            alike, and a row counts 1 on the average.

    Raises:
        RecipeError: if a label that is named is none of those that are learned.
    """
    strange = [label for label in weights or {} if label not in labels]
    if strange:
        raise RecipeError(
            f"method.class_weights names '{spell(strange[0])}', which is no label",
            hint=f"the labels are {', '.join(map(spell, labels[:10]))}",
            where="method.class_weights",
        )
    found = [row.label for row in _read(rows)]
    if weights is None:
        counts = Counter(found)
        weights = {label: len(found) / (len(counts) * count) for label, count in counts.items()}
    return rows.beside(class_weight=np.array([weights.get(label, 1.0) for label in found]))


def number_all(splits: Splits, labels: Sequence[str]) -> Splits:
    """Let all rows of a run carry the numbers of their labels."""
    held = splits.validation
    return replace(
        splits,
        train=number_labels(splits.train, labels),
        validation=None if held is None else number_labels(held, labels),
    )


def _read(rows: TokenRows) -> Iterator[Labelled]:
    for number in range(len(rows)):
        row = rows.conversation(number)
        assert isinstance(row, Labelled)  # others are refused before
        yield row
