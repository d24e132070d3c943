"""The same conversations for our losses and for plain ones on padded logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tests import tiny
from tests.golden.test_trl import ROWS
from tunesmith.data.prepare import prepare
from tunesmith.data.rows import Learn
from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.batches import pad
from tunesmith.models.reader import find_reader
from tunesmith.recipe.data import Data, Source


def make_rows(tmp_path: Path, folder: Path) -> list[dict[str, Any]]:
    reader = find_reader(folder)
    data = Data(train=(Source(path=str(tiny.write_rows(tmp_path / "rows.jsonl", ROWS))),))
    rows = prepare(data, Learn("conversation"), reader.tokenizer, reader.template, seed=0).train
    return [rows[row] for row in range(len(rows))]


def padded_logits(model: Any, rows: list[dict[str, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
    """All logits at once, [rows, seq, vocab], and the next tokens, -100 where none is learned."""
    batch = pad(rows)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    labels = torch.full_like(ids, UNLEARNED)
    for place, row in enumerate(rows):
        labels[place, : len(row["labels"])] = torch.tensor(row["labels"])
    labels[:, 0] = UNLEARNED
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return logits[:, :-1].float(), labels[:, 1:]
