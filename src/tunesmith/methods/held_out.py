"""The loss, and what else a method measures, on rows that are not learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.data.token_rows import TokenRows
from tunesmith.methods.batches import to_device
from tunesmith.methods.method import Joining, Method
from tunesmith.methods.ranks import WHOLE, Share

if TYPE_CHECKING:
    import torch


def measure_held_out(
    model: torch.nn.Module,
    method: Method,
    rows: TokenRows,
    *,
    how: Joining,
    batch_size: int,
    share: Share = WHOLE,
) -> dict[str, float] | None:
    """Average the loss over all learned tokens, or pairs, of the rows, in nats.

    Draws no random number, so that measuring does not change a training.

    Args:
        batch_size: rows of one batch; changes speed and memory only.
        share: what falls to this process; the figures are those of all.

    Returns:
        loss, and the method's other measures by name; None if it gave up, or nothing is learned.
    """
    import torch

    device = next(model.parameters()).device
    was_training, gave_up = model.training, True
    model.eval()
    totals = {"count": 0.0, "loss": 0.0}
    order = sorted(range(len(rows)), key=lambda row: int(rows.lengths[row]))
    for start in share.of(range(0, len(order), batch_size)):
        if share.give_up():
            break
        chosen = [rows[row] for row in order[start : start + batch_size]]
        batch = method.collate(chosen, how)
        with torch.no_grad():
            summed = method.loss(model, to_device(batch, device))
        totals["count"] += summed.count
        for name, value in {"loss": summed.total, **summed.measures}.items():
            totals[name] = totals.get(name, 0.0) + float(value)
    else:
        gave_up = False
    model.train(was_training)
    if share.ranks.any(gave_up):
        return None
    totals = share.ranks.totals(totals)
    count = totals.pop("count")
    return {name: total / count for name, total in totals.items()} if count else None
