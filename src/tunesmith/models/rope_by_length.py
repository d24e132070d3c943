"""Rotary positions that turn the slower the longer a text is: each row by its own length.

transformers turns all rows of a batch by the longest of them, and `dynamic` goes on so until a
short text comes: what a row says depends on what is computed beside it and what was before.
Here every row gets what it would alone, in a model that has computed nothing yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import torch

from tunesmith.errors import ModelError
from tunesmith.models.rope import AXES

KINDS = frozenset({"dynamic", "longrope"})
LEARNED = "original_inv_freq"
"""How transformers calls the frequencies of short texts, a layer's kind before it."""


def turn_by_own_length(model: Any) -> None:
    """Let a model turn the positions of each row by that row's length, if it asks lengths at all.

    Raises:
        ModelError: if its positions have several axes, which tell no length.
    """
    for module in _find(model):
        if AXES in module.config.rope_parameters:
            raise ModelError(
                "its positions have several axes, and turn by the length of a text too",
                hint="write another rope_type into its config.json, such as yarn",
                where="config.json: rope_parameters",
            )
        kind: Any = type(module)
        module.__class__ = _by_own_length(kind)


def turns_by_length(model: torch.nn.Module) -> bool:
    """Whether a model turns the positions of a row by how long it is."""
    return any(True for _ in _find(model))


def turn_as_short_texts(model: torch.nn.Module) -> None:
    """Let a model ask no lengths any more, as where its tokens hold no numbers."""
    for module in list(_find(model)):
        kinds = module.rope_type
        module.rope_type = dict.fromkeys(kinds, "") if isinstance(kinds, dict) else ""


def _find(model: torch.nn.Module) -> Iterator[Any]:
    """Find the modules that ask how long a text is."""
    for module in model.modules():
        kinds = vars(module).get("rope_type")
        if KINDS.intersection(kinds.values() if isinstance(kinds, dict) else [kinds]):
            yield module


@cache
def _by_own_length(kind: type[Any]) -> type[Any]:
    """Make a class of rotations ask its own about every row alone."""

    def forward(
        self: Any, x: torch.Tensor, position_ids: torch.Tensor, *more: Any, **named: Any
    ) -> Any:
        rows = []
        for row in torch.split(position_ids, 1):
            parts = []
            for part in torch.split(row, _lengths(row[0]), dim=1):
                _forget(self)
                parts.append(kind.forward(self, x, part, *more, **named))
            rows.append(_join(parts, 1))
        return _join(rows, 0)

    return type(kind.__name__, (kind,), {"forward": forward, "__module__": kind.__module__})


def _lengths(positions: torch.Tensor) -> list[int]:
    """Find where positions begin anew: tokens of each row that lies in a sequence."""
    breaks = (positions.diff() != 1).nonzero().flatten() + 1
    edges = [0, *breaks.tolist(), len(positions)]
    return [end - start for start, end in pairwise(edges)]


def _forget(module: Any) -> None:
    """Put the frequencies of short texts back where a longer one has changed them."""
    for name, learned in list(module.named_buffers(recurse=False)):
        if not name.endswith(LEARNED):
            continue
        layers = name.removesuffix(LEARNED)
        kinds = module.rope_type
        kind = kinds if isinstance(kinds, str) else kinds[layers.removesuffix("_")]
        if kind == "dynamic":  # longrope writes into what it finds there
            vars(module)["_buffers"][f"{layers}inv_freq"] = learned
            vars(module)[f"{layers}max_seq_len_cached"] = module.original_max_seq_len


def _join(parts: list[Any], axis: int) -> Any:
    """Put rotations together: cosines and sines, or complex numbers."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], torch.Tensor):
        return torch.cat(parts, dim=axis)
    return tuple(torch.cat(each, dim=axis) for each in zip(*parts, strict=True))
