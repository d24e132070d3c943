"""Join rows into batches: laid end to end where the model can, else padded."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.method import Batch, Joining, Row

if TYPE_CHECKING:
    import torch

PAD_TO = 8


def join(rows: Sequence[Row], how: Joining) -> Batch:
    """Join rows into one batch."""
    if not how.flat:
        return pad(rows)
    if how.coarse:
        rows = [*rows, *_filling([len(row["input_ids"]) for row in rows])]
    return lay_end_to_end(rows)


def _filling(lengths: Sequence[int]) -> list[Row]:
    """Make rows that nobody learns from, no longer than others, up to a coarse size."""
    tokens, longest = sum(lengths), max(lengths)
    step = max(PAD_TO, 1 << max(tokens.bit_length() - 5, 0))
    whole, rest = divmod(-tokens % step, longest)
    sizes = [longest] * whole + [rest] * (rest > 0)
    return [{"input_ids": [0] * size, "labels": [UNLEARNED] * size} for size in sizes]


def lay_end_to_end(rows: Sequence[Row]) -> Batch:
    """Join rows into one sequence.

    Returns:
        input_ids, position_ids, which begin anew at each row, and labels, each [1, seq], where
        the first token of a row is never learned; edges: the first token of each row and the end
        of the last, [rows + 1].
    """
    import torch

    edges = list(accumulate((len(row["input_ids"]) for row in rows), initial=0))
    labels = torch.tensor([label for row in rows for label in row["labels"]])
    labels[edges[:-1]] = UNLEARNED
    ids = torch.tensor([token for row in rows for token in row["input_ids"]])
    positions = torch.cat([torch.arange(len(row["input_ids"])) for row in rows])
    return {
        "input_ids": ids[None],
        "position_ids": positions[None],
        "labels": labels[None],
        "edges": torch.tensor(edges),
    }


def pad(rows: Sequence[Row]) -> Batch:
    """Join rows into one batch, padded on the right to the longest.

    Returns:
        input_ids, attention_mask and labels, each [batch, seq]; labels are -100 where nothing is
        learned.
    """
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    seq = -(-longest // PAD_TO) * PAD_TO
    ids = torch.zeros(len(rows), seq, dtype=torch.long)
    mask = torch.zeros(len(rows), seq, dtype=torch.long)
    labels = torch.full((len(rows), seq), UNLEARNED, dtype=torch.long)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length] = torch.tensor(row["input_ids"])
        mask[place, :length] = 1
        labels[place, :length] = torch.tensor(row["labels"])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def count_learned(batch: Batch) -> torch.Tensor:
    """Count the tokens of a batch that are learned."""
    return (batch["labels"][:, 1:] != UNLEARNED).sum()


def split_update(lengths: Sequence[int], *, tokens: int, flat: bool) -> list[slice]:
    """Split the rows of an update into batches of at most so many tokens, a row at least.

    Args:
        lengths: tokens of each row, [rows]; for padded batches the longest first.
        tokens: most tokens of a batch, padding included.
    """
    parts: list[slice] = []
    start = held = widest = 0
    for row, length in enumerate(lengths):
        widest = max(widest, length)
        now = held + length if flat else widest * (row + 1 - start)
        if row > start and now > tokens:
            parts.append(slice(start, row))
            start, now, widest = row, length, length
        held = now
    return [*parts, slice(start, len(lengths))]
