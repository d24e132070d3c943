"""Measure a classifier: which classes it names, and which it takes for one another."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tunesmith.data.labels import number_labels
from tunesmith.data.token_rows import TokenRows
from tunesmith.methods.averages import macro_f1
from tunesmith.methods.batches import to_device
from tunesmith.methods.classify import class_scores
from tunesmith.methods.method import Joining, Method
from tunesmith.models.classes import Classifier
from tunesmith.models.image_reader import ImageReader

BATCH_ROWS = 16


@dataclass(frozen=True)
class Confusion:
    """How often rows of each class were named how.

    Attributes:
        labels: names of the classes.
        counts: rows of a class by what they were named, [labels, labels].
    """

    labels: list[str]
    counts: list[list[int]]

    @property
    def accuracy(self) -> float:
        """Share of the rows that were named rightly."""
        table = np.array(self.counts)
        return float(table.trace() / table.sum())

    @property
    def macro_f1(self) -> float:
        """F1 of the classes that there are, or that are named, averaged over them."""
        table = np.array(self.counts)
        return macro_f1(table.diagonal().tolist(), table.sum(0).tolist(), table.sum(1).tolist())


def confuse(model: Classifier, method: Method, rows: TokenRows) -> tuple[Confusion, float]:
    """Let a classifier name the class of every row; return the loss too, in nats a row."""
    import torch
    from torch.nn.functional import cross_entropy

    from tunesmith.models.layout import find_layout

    images = isinstance(model.reader, ImageReader)
    how = Joining(flat=images or find_layout(model.model).is_flat)
    rows = number_labels(rows, model.labels)
    if isinstance(model.reader, ImageReader):
        rows = rows.with_pixels(model.reader.pixels)
    device, loss = next(model.model.parameters()).device, 0.0
    table = np.zeros((len(model.labels), len(model.labels)), np.int64)
    order = sorted(range(len(rows)), key=lambda row: int(rows.lengths[row]))
    for start in range(0, len(order), BATCH_ROWS):
        chosen = [rows[row] for row in order[start : start + BATCH_ROWS]]
        batch = to_device(method.collate(chosen, how), device)
        with torch.no_grad():
            scores = class_scores(model.model, batch)
            loss += float(cross_entropy(scores, batch["classes"], reduction="sum"))
        np.add.at(table, (batch["classes"].cpu().numpy(), scores.argmax(dim=1).cpu().numpy()), 1)
    return Confusion(list(model.labels), table.tolist()), loss / len(rows)
