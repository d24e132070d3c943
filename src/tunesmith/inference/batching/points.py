"""Texts as points, with what an adapter adds: each read at once, nothing of it kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from tunesmith.inference.batching.forward import Forward
from tunesmith.inference.batching.step import Step


class Points(Forward):
    """A model that reads whole texts, beside the steps in which answers are written."""

    @torch.no_grad()
    def mean(self, prompt: Sequence[int], adapter: str) -> list[float]:
        """Return the mean of the last hidden states of a text."""
        weights, size = self.weights, len(prompt)
        step = Step(
            torch.tensor(list(prompt), device=weights.device),
            torch.arange(size, device=weights.device),
            size,
            parts=(),
            outputs=None,
            rows=[],
            models=[adapter] * size,
        )
        rows, _ = self.read(step)
        states = functional.rms_norm(rows, rows.shape[-1:], weights.norm, weights.epsilon)
        found: list[float] = states.float().mean(dim=0).tolist()
        return found

    def attend(
        self, step: Step, place: int, queries: torch.Tensor, kept: torch.Tensor
    ) -> torch.Tensor:
        """Let tokens look at those before them; [tokens, heads, head]."""
        keys, values = kept.transpose(0, 1)[None].chunk(2, dim=1)
        window, mask = self.weights.layers[place].window, None
        if window is not None and window < step.longest:
            apart = step.positions[:, None] - step.positions
            mask = (apart >= 0) & (apart < window)
        return (
            functional.scaled_dot_product_attention(
                queries.transpose(0, 1)[None],
                keys,
                values,
                attn_mask=mask,
                is_causal=mask is None,
                scale=self.weights.scale,
                enable_gqa=True,
            )[0]
            .transpose(0, 1)
            .contiguous()
        )
