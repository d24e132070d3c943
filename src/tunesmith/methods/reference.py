"""What a reference says of the answers of every row: most often the model before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from tunesmith.data.progress import track
from tunesmith.data.token_rows import TokenRows
from tunesmith.methods.batches import count_tokens, split_update, to_device
from tunesmith.methods.method import Joining, Method
from tunesmith.methods.ranks import WHOLE, Share

if TYPE_CHECKING:
    import torch

Logps = npt.NDArray[np.float64]


def reference_logps(
    model: torch.nn.Module,
    method: Method,
    rows: TokenRows,
    *,
    how: Joining,
    tokens: int,
    share: Share = WHOLE,
) -> Logps | None:
    """Ask a model what a method has to know of every row, an adapter switched off.

    Args:
        tokens: most tokens of a batch.
        share: which of the batches fall to this process; the numbers are the same however many
            share them.

    Returns:
        [rows, 2], or None if it gave up.
    """
    import torch

    from tunesmith.models.adapter import without_adapter

    device = next(model.parameters()).device
    order = np.argsort(-rows.lengths, kind="stable")
    lengths = [count_tokens(rows[int(row)], how) for row in order]
    found = np.zeros((len(rows), 2))
    was_training, gave_up = model.training, True
    model.eval()
    with torch.no_grad(), without_adapter(model):
        parts = split_update(lengths, tokens=tokens, flat=how.flat)
        for part in track(share.of(parts), "reference, batch"):
            if share.give_up():
                break
            batch = to_device(method.collate([rows[int(row)] for row in order[part]], how), device)
            found[order[part]] = method.logps(model, batch).cpu().numpy()
        else:
            gave_up = False
    model.train(was_training)
    if share.ranks.any(gave_up):
        return None
    share.ranks.total(torch.from_numpy(found))
    return found
