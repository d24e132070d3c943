"""Noise on the embeddings of a training (NEFTune, arXiv:2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch

if TYPE_CHECKING:
    import torch


@contextmanager
def noise_on_embeddings(model: torch.nn.Module, batch: Batch, alpha: float) -> Iterator[None]:
    """Let a model add uniform noise of at most alpha / sqrt(length * width) to what it embeds.

    The length is that of a token's own row, however rows were joined. What rows show takes the
    places of its tokens afterwards, and carries none.
    """
    import torch

    from tunesmith.models.inner import inner_model

    def add(_: torch.nn.Module, __: object, embedded: torch.Tensor) -> torch.Tensor:
        if embedded.shape[:-1] != batch["input_ids"].shape:
            return embedded
        limits = alpha / (row_lengths(batch) * embedded.shape[-1]).sqrt()
        noise = torch.empty_like(embedded).uniform_(-1.0, 1.0)
        return embedded + noise * limits[..., None].to(embedded.dtype)

    handle = inner_model(model).get_input_embeddings().register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


def row_lengths(batch: Batch) -> torch.Tensor:
    """Count the tokens of the row that each token stands in, [batch, seq]."""
    import torch

    if "segments" in batch:
        sizes = [end - start for start, end, *_ in batch["segments"]]
        lengths = torch.tensor(sizes, device=batch["input_ids"].device)
        return lengths.repeat_interleave(lengths)[None]
    counts: torch.Tensor = batch["attention_mask"].sum(dim=1, keepdim=True)
    return counts.expand_as(batch["input_ids"])
