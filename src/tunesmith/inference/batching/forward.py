"""One pass through a Llama-like model for the tokens of a step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch.nn import functional

from tunesmith.inference.batching.adapters import Adapters, Groups
from tunesmith.inference.batching.step import Part, Step, Stretch
from tunesmith.inference.batching.weights import Layer, Weights

FIRST_TURNS = 1024
"""Positions whose turns are made at once at first."""


@dataclass(frozen=True)
class Reading:
    """A step on its way through the layers.

    Attributes:
        cos, sin: the turns of its tokens, in the order of the groups; [tokens, 1, head].
    """

    step: Step
    groups: Groups
    cos: torch.Tensor
    sin: torch.Tensor


@dataclass
class Forward:
    """A model as it is read with.

    Attributes:
        adapters: what is added to its products.
        windows: how far its layers see, each once.
    """

    weights: Weights
    adapters: Adapters
    windows: tuple[int | None, ...] = field(init=False)
    _turns: tuple[torch.Tensor, torch.Tensor] | None = None

    def __post_init__(self) -> None:
        self.windows = tuple(dict.fromkeys(layer.window for layer in self.weights.layers))

    def __call__(self, step: Step) -> torch.Tensor:
        """Return the logits of the tokens that follow, [answers, vocab]; fill the cache."""
        weights = self.weights
        rows, groups = self.read(step)
        rows, groups = groups.select(rows, step.outputs)
        normal = self._normalize(rows, weights.norm)
        return groups.restore(groups.product(weights.head, normal, (-1, "head")))

    def read(self, step: Step) -> tuple[torch.Tensor, Groups]:
        """Return what comes out of the last layer, [tokens, width], in the order of the groups."""
        weights = self.weights
        groups = self.adapters.group(step.models, weights.device)
        tokens, positions = groups.arrange(step.tokens), groups.arrange(step.positions)
        cos, sin = (turns[positions, None] for turns in self._find_turns(step.longest))
        reading = Reading(step, groups, cos, sin)
        rows = weights.embedding[tokens]
        for place, layer in enumerate(weights.layers):
            normal = self._normalize(rows, layer.norm)
            looked = self._look(reading, place, layer, normal)
            rows.add_(groups.product(layer.out, looked, (place, "out")))
            normal = self._normalize(rows, layer.mlp_norm)
            gate, up = groups.product(layer.gate_up, normal, (place, "gate_up")).chunk(2, -1)
            inner = weights.activation(gate).mul_(up)
            rows.add_(groups.product(layer.down, inner, (place, "down")))
        return rows, groups

    def _normalize(self, rows: torch.Tensor, norm: torch.Tensor) -> torch.Tensor:
        """Scale rows for a product, in the numbers that it is computed in."""
        found = functional.rms_norm(rows, rows.shape[-1:], norm, self.weights.epsilon)
        return found.to(self.weights.dtype)

    def _look(self, reading: Reading, place: int, layer: Layer, rows: torch.Tensor) -> torch.Tensor:
        """Keep the keys and values of tokens, and let them look at those they see."""
        weights, groups = self.weights, reading.groups
        heads, size = weights.num_heads, weights.head_size
        together = heads + weights.num_kv_heads
        qkv = groups.product(layer.qkv, rows, (place, "qkv")).contiguous()
        qkv = qkv.view(len(rows), -1, size)
        turned = qkv[:, :together]
        if layer.heads is not None:
            turned = functional.rms_norm(turned, (size,), None, weights.epsilon).mul_(layer.heads)
        turned = torch.addcmul(turned * reading.cos, turned.roll(size // 2, -1), reading.sin)
        qkv[:, heads:together] = turned[:, heads:]
        queries, kept = groups.restore(turned[:, :heads]), groups.restore(qkv[:, heads:])
        found = self.attend(reading.step, place, queries, kept)
        return groups.arrange(found.view(len(rows), -1))

    def attend(
        self, step: Step, place: int, queries: torch.Tensor, kept: torch.Tensor
    ) -> torch.Tensor:
        """Keep the keys and values of a layer, and let tokens look; [tokens, heads, head].

        Args:
            kept: keys, then values; [tokens, 2 * kv heads, head].
        """
        window, size = self.weights.layers[place].window, queries.shape[-1]
        found = torch.empty_like(queries, memory_format=torch.contiguous_format)
        for part in step.parts:
            cache = part.shelf.kept[place]
            mine = kept[part.at : part.at + part.size].reshape(-1, size)
            cache.view(-1, size).index_copy_(0, part.into, mine)
            self._look_at_ends(part, window, cache, queries, found)
            for stretch in part.stretches:
                self._look_along(stretch, window, cache, queries, found)
        return found

    def _look_at_ends(
        self,
        part: Part,
        window: int | None,
        cache: torch.Tensor,
        queries: torch.Tensor,
        found: torch.Tensor,
    ) -> None:
        """Let the last tokens of several texts look, all at once."""
        ready, kv_heads, size = part.num_ready, self.weights.num_kv_heads, queries.shape[-1]
        if not ready:
            return
        start, stop, mask = part.seen[window]
        tokens = slice(part.at, part.at + ready)
        found[tokens] = functional.scaled_dot_product_attention(
            # Heads that share keys stand as if they were several tokens of one head.
            queries[tokens].view(ready, kv_heads, -1, size),
            cache[:ready, :kv_heads, start:stop],
            cache[:ready, kv_heads:, start:stop],
            attn_mask=mask,
            scale=self.weights.scale,
        ).reshape(ready, -1, size)

    def _look_along(
        self,
        stretch: Stretch,
        window: int | None,
        cache: torch.Tensor,
        queries: torch.Tensor,
        found: torch.Tensor,
    ) -> None:
        """Let several tokens of one text look."""
        kv_heads, place = self.weights.num_kv_heads, stretch.slot.place
        start, stop, mask = stretch.seen[window]
        tokens = slice(stretch.at, stretch.at + stretch.size)
        found[tokens] = functional.scaled_dot_product_attention(
            queries[tokens].transpose(0, 1)[None],
            cache[None, place, :kv_heads, start:stop],
            cache[None, place, kv_heads:, start:stop],
            attn_mask=mask,
            is_causal=mask is None and stretch.size > 1,
            scale=self.weights.scale,
            enable_gqa=True,
        )[0].transpose(0, 1)

    def _find_turns(self, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return cos and sin of positions, the first half of sin negative; [positions, head]."""
        if self._turns is None or len(self._turns[0]) < longest:
            weights, size = self.weights, FIRST_TURNS
            while size < longest:
                size *= 2
            like = torch.empty(0, dtype=weights.dtype, device=weights.device)
            positions = torch.arange(min(size, weights.longest), device=weights.device)[None]
            cos, sin = weights.rotary(like, positions)
            cos, sin = cos[0].clone(), sin[0].clone()
            sin[:, : sin.shape[1] // 2].neg_()
            self._turns = cos, sin
        return self._turns
