"""The loss on rows that are measured, not learned."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tunesmith.data.token_rows import TokenRows
from tunesmith.methods.method import Joining, Method

if TYPE_CHECKING:
    import torch


def held_out_loss(
    model: torch.nn.Module,
    method: Method,
    rows: TokenRows,
    *,
    how: Joining,
    batch_size: int,
    give_up: Callable[[], bool] = lambda: False,
) -> float | None:
    """Average the loss over all learned tokens of the rows, in nats.

    Draws no random number, so that measuring does not change a training.

    Args:
        batch_size: rows of one batch; changes speed and memory only.
        give_up: asked before each batch whether to end without a figure.

    Returns:
        None if it gave up, or no token is learned.
    """
    import torch

    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    total, count = 0.0, 0
    order = sorted(range(len(rows)), key=lambda row: int(rows.lengths[row]))
    for start in range(0, len(order), batch_size):
        if give_up():
            count = 0
            break
        chosen = [rows[row] for row in order[start : start + batch_size]]
        batch = method.collate(chosen, how)
        with torch.no_grad():
            summed = method.loss(model, {name: t.to(device) for name, t in batch.items()})
        total += float(summed.total)
        count += int(summed.count)
    model.train(was_training)
    return total / count if count else None
