"""Noise on the embeddings of a training (NEFTune, arXiv:2310.05914)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.methods.method import Batch

if TYPE_CHECKING:
    import torch


def noisy_embeddings(model: torch.nn.Module, batch: Batch, alpha: float) -> torch.Tensor:
    """Embed the tokens of a batch, with uniform noise of at most alpha / sqrt(length * width).

    The length is that of a token's own row, however rows were joined.

    Returns:
        [batch, seq, width].
    """
    import torch

    from tunesmith.models.inner import inner_model

    embedded: torch.Tensor = inner_model(model).get_input_embeddings()(batch["input_ids"])
    limits = alpha / (row_lengths(batch) * embedded.shape[-1]).sqrt()
    noise = torch.empty_like(embedded).uniform_(-1.0, 1.0)
    return embedded + noise * limits[..., None].to(embedded.dtype)


def row_lengths(batch: Batch) -> torch.Tensor:
    """Count the tokens of the row that each token stands in, [batch, seq]."""
    import torch

    if "segments" in batch:
        sizes = [end - start for start, end, *_ in batch["segments"]]
        lengths = torch.tensor(sizes, device=batch["input_ids"].device)
        return lengths.repeat_interleave(lengths)[None]
    counts: torch.Tensor = batch["attention_mask"].sum(dim=1, keepdim=True)
    return counts.expand_as(batch["input_ids"])
