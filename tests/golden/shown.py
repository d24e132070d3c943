"""What rows that show something are compared with: transformers' own code, a row at a time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tunesmith.data.prepare import prepare
from tunesmith.data.token_rows import TokenRows
from tunesmith.methods import build_method
from tunesmith.methods.classify import learn_of
from tunesmith.methods.method import Joining
from tunesmith.models.layout import find_layout
from tunesmith.models.load import load_model
from tunesmith.models.reader import Reader
from tunesmith.models.seeing import let_see
from tunesmith.recipe.data import Data
from tunesmith.recipe.method import SFT


def read_rows(reader: Reader, path: Path, max_tokens: int) -> TokenRows:
    learn = learn_of(build_method(SFT()), reader)
    data = Data(train=(str(path),), max_tokens=max_tokens)
    return prepare(data, learn, reader.tokenizer, reader.template, seed=0).train


def assert_learned_alike(
    folder: Path,
    reader: Reader,
    rows: TokenRows,
    theirs_of: Callable[[Reader, int], Any],
    *,
    padded: bool,
) -> None:
    """Compare tokens, the loss of all rows and its gradients, end to end and padded.

    Args:
        theirs_of: what transformers' processor gives of a row.
        padded: whether rows of the family cannot lie end to end.
    """
    assert reader.senses is not None
    device = torch.device("cpu")
    mine = load_model(folder, dtype=torch.float32, device=device).eval()
    theirs: Any = copy.deepcopy(mine)
    let_see(mine, reader.senses)
    layout = find_layout(mine)
    assert bool(layout.padded_because) == padded, layout.padded_because

    losses, learned = [], 0
    for number in range(len(rows)):
        given, row = theirs_of(reader, number), rows[number]
        ids = given["input_ids"][0].tolist()
        assert row["input_ids"] == ids[: len(row["input_ids"])]  # the template writes a newline
        labels = torch.full_like(given["input_ids"], -100)
        labels[0, : len(row["labels"])] = torch.tensor(row["labels"])
        count = sum(label != -100 for label in row["labels"])
        losses.append(theirs(**given, labels=labels).loss * count)
        learned += count
    expected = torch.stack(losses).sum() / learned
    expected.backward()

    method = build_method(SFT())
    for flat in {layout.is_flat, False}:
        mine.zero_grad()
        batch = method.collate([rows[n] for n in range(len(rows))], Joining(flat=flat))
        summed = method.loss(mine, batch)
        (summed.total / summed.count).backward()
        assert summed.total.item() / summed.count == pytest.approx(expected.item(), abs=1e-6)
        found = {n: p.grad for n, p in mine.named_parameters() if p.grad is not None}
        wanted = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
        assert found.keys() == wanted.keys()
        assert any("vis" in name for name in found)
        for name, gradient in found.items():
            allowed = max(1e-6, 1e-5 * float(wanted[name].abs().max()))
            torch.testing.assert_close(gradient, wanted[name], rtol=1e-4, atol=allowed, msg=name)
