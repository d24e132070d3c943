"""What a model that sees or hears is given beside its tokens."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from tunesmith.errors import ModelError
from tunesmith.models.inner import inner_model
from tunesmith.models.score import find_score

if TYPE_CHECKING:
    from tunesmith.models.row_attention import Segment
    from tunesmith.models.senses import Senses

TYPES = ("mm_token_type_ids", "token_type_ids")
"""What models call the kind of each token: text, image, video or sound."""
GRIDS = {"image_grid_thw": 1, "video_grid_thw": 2}
"""Sizes of what is seen, by what they are called, with the number of their kind."""
PACES = "second_per_grid_ts"
"""How long each of the pairs of frames of a video is shown, beside its size."""


@dataclass(frozen=True)
class Trial:
    """A row to try a model with: its tokens, and what it shows."""

    ids: tuple[int, ...]
    shown: tuple[tuple[str, Any], ...]


def trial_rows(senses: Senses) -> list[Trial]:
    """Make two rows that show an image each, of different sizes, in different places."""
    from PIL import Image

    rows = []
    for before, after, size, colour in (
        ((1, 2, 3), (4,), (64, 48), 90),
        ((5,), (6, 1), (40, 64), 9),
    ):
        shown = ("image", Image.new("RGB", size, (colour, 200, 40)))
        tokens = senses.processor.tokenizer.encode(senses.spell(shown), add_special_tokens=False)
        rows.append(Trial((*before, *tokens, *after), (shown,)))
    return rows


_SENSES: WeakKeyDictionary[torch.nn.Module, Senses] = WeakKeyDictionary()


def let_see(model: torch.nn.Module, senses: Senses) -> None:
    """Note how a model sees, for whoever tries it out or asks it."""
    _SENSES[inner_model(model)] = senses


def senses_of(model: torch.nn.Module) -> Senses | None:
    """Return how a model sees; None for one of text alone."""
    return _SENSES.get(inner_model(model))


def seen_arguments(
    model: torch.nn.Module, ids: torch.Tensor, numbers: Mapping[str, Any]
) -> dict[str, Any]:
    """List what a model's forward is given for what its tokens show: numbers, kinds of tokens.

    Args:
        ids: [batch, seq].
        numbers: what `Senses.numbers` made of all rows, in their order.
    """
    senses = _senses(model)
    names = accepted_by(model)
    given = {name: value.to(ids.device) for name, value in numbers.items() if name in names}
    wanted = next((name for name in TYPES if name in names), None)
    return given | ({wanted: types_of(ids, senses.types)} if wanted else {})


def seen_positions(
    model: torch.nn.Module,
    ids: torch.Tensor,
    numbers: Mapping[str, Any],
    *,
    segments: Sequence[Segment] = (),
    mask: torch.Tensor | None = None,
) -> dict[str, torch.Tensor]:
    """Number tokens along several axes, for models that do so.

    Args:
        segments: the rows, where they lie end to end.
        mask: which tokens are none, where they are padded, [batch, seq].
    """
    inner = inner_model(model)
    if not has_grids(inner):
        return {}
    types = types_of(ids, _senses(model).types)
    grids = {
        name: torch.as_tensor(value, device=ids.device)
        for name, value in numbers.items()
        if name in (*GRIDS, PACES)
    }
    if segments:
        return {"position_ids": _positions_of_rows(inner, ids, types, grids, segments)}
    found, _ = inner.model.get_rope_index(
        ids, mm_token_type_ids=types, attention_mask=mask, **grids
    )
    return {"position_ids": found}


def _senses(model: torch.nn.Module) -> Senses:
    senses = senses_of(model)
    if senses is None:  # the one that learns sees; one beside it may not
        raise ModelError(
            "the rows show something, and the model beside the one that learns reads text alone",
            hint="name a teacher, a reference or a judge that sees",
            where="method",
        )
    return senses


def has_grids(inner: Any) -> bool:
    """Whether a model's positions have several axes, along what is seen."""
    return "get_rope_index" in dir(type(vars(inner).get("_modules", {}).get("model")))


def accepted_by(model: torch.nn.Module) -> frozenset[str]:
    """List what a model's forward takes by name; one that scores hands on what it does not name."""
    inner = inner_model(model)
    asked = [inner] if find_score(inner) is None else [inner, inner.base_model]
    return frozenset(name for one in asked for name in inspect.signature(one.forward).parameters)


def types_of(ids: torch.Tensor, numbers: Mapping[int, int]) -> torch.Tensor:
    """Tell the kind of each token: 0 for text."""
    types = torch.zeros_like(ids)
    for token, number in numbers.items():
        types[ids == token] = number
    return types


def _positions_of_rows(
    inner: Any,
    ids: torch.Tensor,
    types: torch.Tensor,
    grids: Mapping[str, torch.Tensor],
    segments: Sequence[Segment],
) -> torch.Tensor:
    """Number the tokens of rows that lie end to end, each row for itself, [axes, 1, seq].

    A segment that goes on from another is numbered on from there.
    """
    side = inner.config.vision_config.spatial_merge_size
    before = {
        name: _count_before(types[0] == number, grids[name].prod(dim=1) // side**2)
        for name, number in GRIDS.items()
        if name in grids
    }
    if PACES in grids:
        before[PACES] = before["video_grid_thw"]
    parts = []
    for start, end, *shared in segments:
        spans = [slice(*shared), slice(start, end)]
        own = {
            name: torch.cat([grids[name][at[s.start] : at[s.stop]] for s in spans])
            for name, at in before.items()
        }
        row, kinds = (torch.cat([given[:, s] for s in spans], dim=1) for given in (ids, types))
        found, _ = inner.model.get_rope_index(row, mm_token_type_ids=kinds, **own)
        parts.append(found[..., start - end :])
    return torch.cat(parts, dim=2)


def _count_before(marks: torch.Tensor, sizes: torch.Tensor) -> list[int]:
    """Count what is shown before each token, the end included.

    Args:
        marks: which tokens stand for it.
        sizes: how many do for each.
    """
    seen = torch.cat([marks.new_zeros(1), marks]).cumsum(0)
    counted: list[int] = torch.searchsorted(sizes.cumsum(0), seen, right=True).tolist()
    return counted
