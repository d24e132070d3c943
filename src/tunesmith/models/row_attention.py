"""Attention over rows laid end to end, which never looks from one row into another.

A model that uses it is called with one sequence and, in the mask's place, the segments of its rows
(`as_mask`). Called in the usual way, it attends as it did before.

A segment is a stretch of the sequence that is attended to causally: its first token and its end. It
may go on from an earlier stretch, which its tokens all see: the third and fourth number, equal if
there is none. So two answers share one question.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import eager_mask, sdpa_mask

from tunesmith.models.autocast import product_type

PREFIX = "rows_"
IN_TRAINING = "attend_in_training"
"""Where an attention layer keeps another way to attend while it trains."""
FORWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
BACKWARD = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward
EXACT_BELOW = 400
"""Tokens of a row below which the CPU's kernel goes back faster in fp32 than in 16 bits."""
IGNORED = frozenset(
    {"position_ids", "is_causal", "use_cache", "output_attentions", "output_hidden_states"}
    | {"return_dict", "cache_position", "logits_to_keep", "output_router_logits"}
)
"""What models hand on that changes nothing here; anything else is refused unless it is None."""
Segment = tuple[int, int, int, int]


class CannotLieFlat(RuntimeError):
    """The model asks of attention what rows laid end to end do not give."""


def as_mask(segments: Sequence[Segment]) -> torch.Tensor:
    """Write segments as a mask of four dimensions, which models hand on untouched.

    Returns:
        [1, 1, segments, 4], int32, on the CPU.
    """
    return torch.tensor(segments, dtype=torch.int32).view(1, 1, -1, 4)


def one_after_another(lengths: Sequence[int]) -> list[Segment]:
    """Return the segments of rows of these lengths that share nothing."""
    edges = accumulate(lengths, initial=0)
    return [(start, end, start, start) for start, end in pairwise(edges)]


def use_row_attention(model: Any) -> None:
    """Let a model attend row by row when it is given segments, and as before when it is not.

    Raises:
        CannotLieFlat: if its attention cannot be replaced.
    """
    before = model.config._attn_implementation
    if before.startswith(PREFIX):
        return
    if before not in ("sdpa", "eager"):
        raise CannotLieFlat(f"its attention is {before}")
    try:
        model.set_attn_implementation(PREFIX + before)
    except (ValueError, KeyError, ImportError) as problem:
        raise CannotLieFlat(str(problem)) from problem


@dataclass(frozen=True)
class Rule:
    """How the tokens of a row see each other: causally, and so on.

    Attributes:
        scale: what scores are multiplied with.
        window: tokens that each token sees, itself included; all before it if None.
        softcap: largest score, reached smoothly (arXiv:2408.00118); None for no limit.
        dropout: share of weights dropped.
    """

    scale: float
    window: int | None = None
    softcap: float | None = None
    dropout: float = 0.0


def attend_rows(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[Segment],
    rule: Rule,
) -> torch.Tensor:
    """Attend causally inside each segment, by the fastest kernel that gives what is asked.

    Args:
        query: [1, heads, seq, head]; key and value may have fewer heads, shared in groups.

    Returns:
        [1, heads, seq, head of value].
    """
    plain = rule.softcap is None and rule.dropout == 0.0 and query.shape[-1] == value.shape[-1]
    if plain and query.device.type == "cpu":
        attended: torch.Tensor = _RowsOnCPU.apply(query, key, value, segments, rule)  # type: ignore[no-untyped-call]
        return attended
    if plain and _has_varlen(query):
        return _varlen(query, key, value, segments, rule)
    rows = [
        _one_row(query[:, :, part[0] : part[1]], _seen(key, part), _seen(value, part), rule)
        for part in segments
    ]
    return torch.cat(rows, dim=2)


def _seen(given: torch.Tensor, segment: Segment) -> torch.Tensor:
    """Return the keys or values that a segment sees: [1, heads, seen, head]."""
    start, end, before, until = segment
    own = given[:, :, start:end]
    return own if before == until else torch.cat([given[:, :, before:until], own], dim=2)


class _RowsOnCPU(torch.autograd.Function):
    """The CPU's flash kernel, stretch by stretch: no copy of the inputs, no score kept.

    What a segment sees of itself and of the stretch that it goes on from are two calls, weighed
    by their sums of exponentials, as blocks are inside the kernel (arXiv:2205.14135).
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        segments: Sequence[Segment],
        rule: Rule,
    ) -> torch.Tensor:
        out = query.new_empty(1, query.shape[2], query.shape[1], query.shape[3]).transpose(1, 2)
        norms = []
        for segment in segments:
            part = slice(*segment[:2])
            asked = query[:, :, part]
            found = [
                FORWARD(asked, k, v, 0.0, causal, attn_mask=mask, scale=rule.scale)
                for k, v, causal, mask in _stretches(asked, key, value, segment, rule.window)
            ]
            out[:, :, part], norm = _weigh(found)
            norms.append(norm)
        ctx.save_for_backward(query, key, value, out, *norms)
        ctx.segments, ctx.rule = segments, rule
        return out

    @staticmethod
    def backward(ctx: Any, *upper: torch.Tensor) -> Any:
        query, key, value, out, *norms = ctx.saved_tensors
        given = (upper[0], query, key, value, out)
        wanted = tuple(torch.empty_like(one) for one in (query, key, value))
        sizes = [end - start for start, end, *_ in ctx.segments]
        exact = tuple(one.float() for one in given) if min(sizes) < EXACT_BELOW else given
        for segment, norm in zip(ctx.segments, norms, strict=True):
            start, end, before, until = segment
            part = slice(start, end)
            up, q, k, v, done = exact if end - start < EXACT_BELOW else given
            asked = q[:, :, part]
            found = [
                BACKWARD(
                    up[:, :, part], asked, *kv, done[:, :, part], norm, 0.0, causal,
                    attn_mask=mask, scale=ctx.rule.scale,
                )
                for *kv, causal, mask in _stretches(asked, k, v, segment, ctx.rule.window)
            ]  # fmt: skip
            wanted[0][:, :, part] = sum(one[0] for one in found)
            for whole, *gradients in zip(wanted[1:], *(one[1:] for one in found), strict=True):
                together = torch.cat(gradients[::-1], dim=2)
                shared = until - before
                whole[:, :, part] = together[:, :, shared:]
                if shared:  # the question's own segment came before
                    whole[:, :, before:until] += together[:, :, :shared]
        return *wanted, None, None


Stretch = tuple[torch.Tensor, torch.Tensor, bool, torch.Tensor | None]


def _stretches(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segment: Segment,
    window: int | None,
) -> list[Stretch]:
    """List what a segment sees: keys, values, whether causally, and a mask; its own come first."""
    start, end, before, until = segment
    if window is not None and end - start + until - before > window:
        seen = _seen(key, segment), _seen(value, segment)
        return [(*seen, False, _mask(query, seen[0], window))]
    found: list[Stretch] = [(key[:, :, start:end], value[:, :, start:end], True, None)]
    if before < until:
        found.append((key[:, :, before:until], value[:, :, before:until], False, None))
    return found


def _weigh(
    found: Sequence[tuple[torch.Tensor, torch.Tensor]],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put together what was found in stretches: results, and logs of their sums of exponentials."""
    if len(found) == 1:
        return found[0]
    (own, own_norm), (other, other_norm) = found
    norm = torch.logaddexp(own_norm, other_norm)
    share = (own_norm - norm).exp()[..., None].to(own.dtype)
    return torch.lerp(other, own, share), norm


def _has_varlen(query: torch.Tensor) -> bool:
    """Whether torch's own variable-length flash attention takes it (CUDA, 16 bits)."""
    half = query.dtype in (torch.bfloat16, torch.float16)
    size = query.shape[-1]
    if query.device.type != "cuda" or not half or size % 8 or size > 256:
        return False
    return torch.cuda.get_device_capability(query.device) >= (8, 0)


def _varlen(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[Segment],
    rule: Rule,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    asked = [end - start for start, end, *_ in segments]
    seen = [size + part[3] - part[2] for size, part in zip(asked, segments, strict=True)]
    if seen != asked:
        key, value = (
            torch.cat([_seen(given, part) for part in segments], dim=2) for given in (key, value)
        )
    starts, ends = (_edges(tuple(sizes), query.device) for sizes in (asked, seen))
    out = varlen_attn(
        query[0].transpose(0, 1),
        key[0].transpose(0, 1),
        value[0].transpose(0, 1),
        starts,
        ends,
        max(asked),
        max(seen),
        scale=rule.scale,
        window_size=(-1 if rule.window is None else rule.window - 1, 0),
        enable_gqa=key.shape[1] != query.shape[1],
    )
    assert isinstance(out, torch.Tensor)
    return out.transpose(0, 1)[None]


@lru_cache(maxsize=8)
def _edges(sizes: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Add up sizes on a device, once for all layers: [sizes + 1], int32."""
    return torch.tensor([0, *accumulate(sizes)], dtype=torch.int32, device=device)


def _one_row(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, rule: Rule
) -> torch.Tensor:
    """Attend inside one segment by stock operators."""
    mask = _mask(query, key, rule.window)
    groups = query.shape[1] // key.shape[1]
    key, value = (given.repeat_interleave(groups, dim=1) for given in (key, value))
    if rule.softcap is None:
        return scaled_dot_product_attention(
            query,
            key,
            value,
            attn_mask=mask,
            dropout_p=rule.dropout,
            is_causal=mask is None,
            scale=rule.scale,
        )
    scores = query @ key.transpose(2, 3) * rule.scale
    scores = rule.softcap * torch.tanh(scores / rule.softcap)
    if mask is None:
        mask = _causal_mask(query, key, None)
    weights = torch.softmax(scores + mask, dim=-1, dtype=torch.float32).to(query.dtype)
    return torch.nn.functional.dropout(weights, rule.dropout) @ value


def _mask(query: torch.Tensor, key: torch.Tensor, window: int | None) -> torch.Tensor | None:
    """Make the mask of a segment that is not simply causal; None for one that is."""
    size, seen = query.shape[2], key.shape[2]
    simple = size == seen and (window is None or seen <= window)
    return None if simple else _causal_mask(query, key, window)


def _causal_mask(query: torch.Tensor, key: torch.Tensor, window: int | None) -> torch.Tensor:
    """Write 0 where a token sees, -inf elsewhere: [tokens, seen]; the last token sees the last."""
    size, seen = query.shape[2], key.shape[2]
    place = torch.arange(seen, device=query.device)
    back = place[seen - size :, None] - place[None, :]
    visible = (back >= 0) & (back < (window or seen))
    return torch.zeros_like(visible, dtype=query.dtype).masked_fill(~visible, float("-inf"))


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    *,
    otherwise: Callable[..., Any],
    **rest: Any,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Attend as transformers asks: query, key, value and mask, or segments in the mask's place."""
    mask = attention_mask
    if mask is None or mask.dtype != torch.int32:
        attended: tuple[torch.Tensor, torch.Tensor | None] = otherwise(
            module, query, key, value, mask, **rest
        )
        return attended
    scaling = rest.pop("scaling", None)
    rule = Rule(
        query.shape[-1] ** -0.5 if scaling is None else scaling,
        window=rest.pop("sliding_window", None),
        softcap=rest.pop("softcap", None),
        dropout=rest.pop("dropout", 0.0),
    )
    strange = [name for name in rest if rest[name] is not None and name not in IGNORED]
    if strange or not vars(module).get("is_causal", True):
        raise CannotLieFlat(f"its attention takes {', '.join(strange) or 'both directions'}")
    dtype = product_type(value)
    segments = mask.tolist()[0][0]
    training = vars(module).get(IN_TRAINING) if module.training else None
    attend = training or attend_rows
    out = attend(query.to(dtype), key.to(dtype), value.to(dtype), segments, rule)
    return out.transpose(1, 2), None


def _attend_or_sdpa(*given: Any, **rest: Any) -> Any:
    return _attend(*given, otherwise=sdpa_attention_forward, **rest)


def _attend_or_eager(module: torch.nn.Module, *given: Any, **rest: Any) -> Any:
    eager = vars(sys.modules[type(module).__module__])["eager_attention_forward"]
    return _attend(module, *given, otherwise=eager, **rest)


AttentionInterface.register(PREFIX + "sdpa", _attend_or_sdpa)
AttentionInterface.register(PREFIX + "eager", _attend_or_eager)
AttentionMaskInterface.register(PREFIX + "sdpa", sdpa_mask)
AttentionMaskInterface.register(PREFIX + "eager", eager_mask)
