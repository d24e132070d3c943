"""Attention within groups, shifted by half a group for half of the heads (arXiv:2309.12307).

What a token cannot see of its own group it sees through the other heads. The paper rolls the last
half group to the row's beginning and masks what would look ahead; here the first half group simply
stands alone, which is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch

from tunesmith.errors import RecipeError
from tunesmith.models.inner import inner_model
from tunesmith.models.layout import check_architecture, find_layout
from tunesmith.models.row_attention import (
    IN_TRAINING,
    CannotLieFlat,
    Rule,
    Segment,
    attend_rows,
)

WHERE = "model.shifted_attention"


def use_shifted_attention(model: torch.nn.Module, group: int) -> None:
    """Let a model attend within groups while it trains, and to whole rows otherwise.

    Raises:
        RecipeError: if its rows cannot lie end to end, or its layers have windows.
    """
    check_shiftable(model)
    because = find_layout(model).padded_because
    if because:
        raise _refusal(because)
    for module in inner_model(model).modules():
        if "Attention" in type(module).__name__ and "layer_idx" in vars(module):
            vars(module)[IN_TRAINING] = partial(attend_shifted, group=group)


def check_shiftable(model: torch.nn.Module) -> None:
    """Refuse what the architecture alone tells; the model may hold no numbers.

    Raises:
        RecipeError: naming what it is.
    """
    inner: Any = inner_model(model)
    options = inner.config.get_text_config().to_dict()
    kinds = set(options.get("layer_types") or ())
    windows = options.get("sliding_window") is not None and options.get("use_sliding_window", True)
    if "sliding_attention" in kinds or (windows and not kinds):
        raise _refusal("its layers see windows already")
    try:
        check_architecture(inner)
    except CannotLieFlat as problem:
        raise _refusal(str(problem)) from None


def _refusal(because: str) -> RecipeError:
    return RecipeError(
        f"the model cannot attend within shifted groups: {because}",
        hint="remove it",
        where=WHERE,
    )


def attend_shifted(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    segments: Sequence[Segment],
    rule: Rule,
    *,
    group: int,
) -> torch.Tensor:
    """Attend causally within groups of each row; shapes as `attend_rows` has them."""
    half = query.shape[1] // 2
    shared = query.shape[1] // key.shape[1]
    if key.shape[1] % 2 and key.shape[1] > 1:
        key, value = (given.repeat_interleave(shared, dim=1) for given in (key, value))
    parts = []
    for place, heads in enumerate((slice(None, half), slice(half, None))):
        keys = slice(None)
        if key.shape[1] > 1:
            middle = half * key.shape[1] // query.shape[1]
            keys = slice(middle, None) if place else slice(None, middle)
        cut = split_groups(segments, group, place * group // 2)
        parts.append(attend_rows(query[:, heads], key[:, keys], value[:, keys], cut, rule))
    return torch.cat(parts, dim=1)


def split_groups(segments: Sequence[Segment], group: int, shift: int) -> list[Segment]:
    """Cut segments where groups end, counting from the row's first token.

    Args:
        shift: tokens that stand alone before the first whole group.
    """
    found: list[Segment] = []
    for start, end, before, until in segments:
        shared, at = until - before, start
        while at < end:
            place = shared + at - start
            begin = shift + (place - shift) // group * group if place >= shift else 0
            stop = begin + group if place >= shift else shift
            past = min(end, start + stop - shared)
            seen = (before + begin, until) if begin < shared else (at, at)
            found.append((at, past, *seen))
            at = past
    return found
