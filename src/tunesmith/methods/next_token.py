"""The next-token loss that pretraining and imitation share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.methods.batches import count_learned
from tunesmith.methods.learned import predict
from tunesmith.methods.method import Batch, LossSum

if TYPE_CHECKING:
    import torch

    from tunesmith.models.head import Weighing


def next_token_loss(
    model: torch.nn.Module,
    batch: Batch,
    *,
    noise: float = 0.0,
    smoothing: float = 0.0,
    weigh: Weighing | None = None,
) -> LossSum:
    """Sum -log p(token | tokens before it) over the learned tokens of a batch.

    Logits are computed only where a token is learned, and never all of them at once.

    Args:
        model: a causal language model.
        batch: what `join` returns.
        noise: strength of noise on the embeddings while training, 0 for none.
        smoothing: share of each target that all tokens get in equal parts while training, 0 to 1.
        weigh: how much each token counts while training; None for all alike.
    """
    found = predict(model, batch, noise=noise)
    total = found.summed_loss(smoothing, weigh) if model.training else found.summed_loss()
    return LossSum(total, count_learned(batch))
