"""The loss, and what else a method measures, on rows that are not learned."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tunesmith.data.token_rows import TokenRows
from tunesmith.methods.averages import Averages
from tunesmith.methods.batches import to_device
from tunesmith.methods.method import Batch, Joining, Method
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
    was_training, gave_up = model.training, False
    model.eval()
    order = sorted(range(len(rows)), key=lambda row: int(rows.lengths[row]))

    def batches() -> Iterator[Batch]:
        nonlocal gave_up
        for start in share.of(range(0, len(order), batch_size)):
            gave_up = gave_up or share.give_up()
            if gave_up:
                return
            chosen = [rows[row] for row in order[start : start + batch_size]]
            yield to_device(method.collate(chosen, how), device)

    averages = Averages()
    with torch.no_grad():
        ahead = method.look_ahead(model, batches(), share.ranks)
        for batch in batches():
            averages.add(method.loss(model, {**batch, **ahead}))
    model.train(was_training)
    if share.ranks.any(gave_up):
        return None
    return averages.take(share.ranks) or None
