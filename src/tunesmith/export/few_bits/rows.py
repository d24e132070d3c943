"""Choose the rows that a layer's inputs are collected on: those the run learned from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data.prepare import Splits, prepare
from tunesmith.data.rows import Learn
from tunesmith.errors import DataError, ExportError
from tunesmith.export.order import Calibration, Order
from tunesmith.export.parity import MAX_PROBES
from tunesmith.methods import build_method
from tunesmith.methods.classify import learn_of
from tunesmith.models.reader import find_reader
from tunesmith.paths import expand
from tunesmith.recipe.data import Data, Source
from tunesmith.recipe.options import Recipe

STREAM = 3
"""Tells draws of rows from other draws by the same seed."""


def read_rows(order: Order, asked: Calibration) -> list[list[int]]:
    """Read token ids of rows drawn by the run's seed.

    None of them is a prompt on which the export is compared, unless there are hardly others.

    Raises:
        ExportError: if they cannot be read.
    """
    recipe = None if order.run is None else order.run.recipe()
    if recipe is None and asked.file is None:
        raise ExportError(
            "GPTQ is calibrated on rows, and a model that is no run has none",
            hint="name a file of texts: export_quantization_dataset, or --calibrate-on",
            where=order.name,
        )
    seed = recipe.run.seed if recipe else 0
    try:
        splits = _read(order, recipe, asked, seed)
    except DataError as problem:
        raise ExportError(
            f"GPTQ is calibrated on rows, and these cannot be read: {problem.message}",
            hint="name a file of plain texts, or leave out --calibrate-on"
            if asked.file
            else "put the run's files back, or name a file of texts with --calibrate-on",
            where=problem.where,
        ) from problem
    rows = splits.train
    compared = 0 if splits.validation or asked.file else MAX_PROBES
    others = np.arange(compared if len(rows) >= 2 * compared else 0, len(rows))
    drawn = np.random.default_rng([seed, STREAM]).permutation(others)[: asked.rows]
    found = [rows[int(row)] for row in drawn]
    if any("shown" in row for row in found):
        raise ExportError(
            "GPTQ is calibrated on texts alone, and the run's rows show something",
            hint="name a file of texts with --calibrate-on",
            where="--calibrate-on",
        )
    return [_ids(row)[: asked.tokens] for row in found]


def _read(order: Order, recipe: Recipe | None, asked: Calibration, seed: int) -> Splits:
    reader = find_reader(order.subject.base, order.subject.template)
    if recipe is not None and asked.file is None:
        learn, data = learn_of(build_method(recipe.method), reader), recipe.data
    else:
        assert asked.file is not None  # one of the two is there
        learn = Learn(kind="text", prompts=True)
        data = _texts(expand(asked.file), asked.tokens)
    return prepare(data, learn, reader.tokenizer, reader.template, seed=seed)


def _texts(file: Path, max_tokens: int) -> Data:
    if not file.is_file():
        raise ExportError(
            "there is no such file", hint="name a file of texts", where=f"--calibrate-on {file}"
        )
    return Data(train=(Source(path=str(file.absolute())),), max_tokens=max_tokens)


def _ids(row: dict[str, Any]) -> list[int]:
    """Take a row's tokens; of two answers to one question the better one's."""
    ids: list[int] = row["input_ids"]
    answers = row.get("answers")
    return ids[: answers[1]] if answers else ids
