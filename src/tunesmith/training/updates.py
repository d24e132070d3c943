"""From the rows of an update to the batches of one process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.methods.batches import count_tokens, split_update
from tunesmith.methods.method import Joining, Method, Row
from tunesmith.methods.ranks import Ranks


class UpdateBatches:
    """Split a process's rows of an update into batches of at most so many tokens."""

    def __init__(self, method: Method, how: Joining, tokens: int, ranks: Ranks) -> None:
        self.method, self.how, self.tokens, self.ranks = method, how, tokens, ranks

    def __call__(self, rows: list[Row]) -> dict[str, Any]:
        """Join the rows of an update that fall to this process.

        Returns:
            batches; num_tokens of all processes, padding left out; num_learned of this one, each
            token by its weight.
        """
        import torch

        num_tokens = sum(len(row["input_ids"]) for row in rows)
        sizes = [count_tokens(row, self.how) for row in rows]
        ours = deal(sizes, self.ranks.count)[self.ranks.rank]
        rows, sizes = [rows[row] for row in ours], [sizes[row] for row in ours]
        parts = split_update(sizes, tokens=self.tokens, flat=self.how.flat) if rows else []
        batches = [self.method.collate(rows[part], self.how) for part in parts]
        return {
            "batches": batches,
            "num_tokens": num_tokens,
            "num_learned": torch.tensor(
                sum(self.method.count(batch) for batch in batches), dtype=torch.float64
            ),
        }


def deal(sizes: Sequence[int], hands: int) -> list[list[int]]:
    """Deal rows so that all get about as many tokens: each row to whoever has the fewest.

    Args:
        sizes: tokens of each row, best the longest first, [rows].

    Returns:
        Row numbers of each hand, in order; none where there are more hands than rows.
    """
    dealt: list[list[int]] = [[] for _ in range(hands)]
    held = [0] * hands
    for row, size in enumerate(sizes):
        hand = held.index(min(held))
        dealt[hand].append(row)
        held[hand] += size
    return dealt
