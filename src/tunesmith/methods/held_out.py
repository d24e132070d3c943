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
        loss, and the method's other measures by name, those of a set after its own; None if it gave
        up, or nothing is learned.
    """
    import torch

    device = next(model.parameters()).device
    was_training, gave_up = model.training, False
    model.eval()
    parts = split_by_set(rows, batch_size)
    # dealt set by set: the first process, which logs, has some of each
    ours = [(name, batch) for name, part in parts.items() for batch in share.of(part)]

    def batches() -> Iterator[Batch]:
        nonlocal gave_up
        for _, chosen in ours:
            gave_up = gave_up or share.give_up()
            if gave_up:
                return
            yield to_device(method.collate([rows[row] for row in chosen], how), device)

    averages = {name: Averages() for name in ("", *rows.sets)}
    with torch.no_grad():
        ahead = method.look_ahead(model, batches(), share.ranks)
        for (name, _), batch in zip(ours, batches(), strict=False):
            summed = method.loss(model, {**batch, **ahead})
            for each in {"", name}:
                averages[each].add(summed)
    model.train(was_training)
    if share.ranks.any(gave_up):
        return None
    found = {name: each.take(share.ranks) for name, each in averages.items()}
    more = {f"{name}_{key}": value for name in rows.sets for key, value in found[name].items()}
    return {**found[""], **more} if found[""] else None


def split_by_set(rows: TokenRows, batch_size: int) -> dict[str, list[list[int]]]:
    """Split the rows of each set into batches of about the same lengths; the rest has no name."""
    named = {row for each in rows.sets.values() for row in each}
    rest = [row for row in range(len(rows)) if row not in named]
    found: dict[str, list[list[int]]] = {}
    for name, own in (*rows.sets.items(), ("", rest)):
        order = sorted(own, key=lambda row: int(rows.lengths[row]))
        starts = range(0, len(order), batch_size)
        found[name] = [order[start : start + batch_size] for start in starts]
    return found
