"""What one pass through the model reads: the last tokens of many texts, and parts of others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from tunesmith.inference.batching.shelves import Shelf, Slot
from tunesmith.inference.row import Row

Seen = tuple[int, int, torch.Tensor | None]
"""From and up to which place of a text its tokens are seen, and a mask for those between."""


@dataclass(frozen=True)
class Stretch:
    """Tokens of one text that are read together.

    Attributes:
        at: the first of them in the step.
        seen: what they see, for each window of the model's layers.
    """

    slot: Slot
    at: int
    size: int
    seen: dict[int | None, Seen] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """What a step reads of one shelf.

    Attributes:
        at: its first token in the step; those of its slots that write come first.
        size: how many tokens.
        seen: what those see that write, for each window.
        into: where keys and values go in the shelf, laid out flat.
    """

    shelf: Shelf
    at: int
    size: int
    num_ready: int
    seen: dict[int | None, Seen]
    stretches: tuple[Stretch, ...]
    into: torch.Tensor


@dataclass(frozen=True)
class Step:
    """One pass.

    Attributes:
        tokens, positions: [tokens].
        longest: the last position and one.
        outputs: tokens that bring a next one; None for all.
        rows: the answers that they bring it for.
        models: the adapter of each token, if any has one.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    longest: int
    parts: tuple[Part, ...]
    outputs: torch.Tensor | None
    rows: list[Row]
    models: list[str]


def build_step(
    shelves: Sequence[Shelf], reading: dict[Slot, int], windows: Sequence[int | None]
) -> Step:
    """Put a step together.

    Args:
        reading: how many tokens are read of texts that are not through yet.
        windows: how far the layers see, each once.
    """
    parts, rows, outputs = [], [], []
    tokens: list[int] = []
    positions: list[int] = []
    models: list[str] = []
    for shelf in shelves:
        at = len(tokens)
        ready = shelf.slots[: shelf.num_ready]
        stretches = []
        for slot in ready:
            outputs.append(len(tokens))
            tokens.append(slot.row.tokens[-1])
            positions.append(slot.size)
            rows.append(slot.row)
            models.append(slot.row.model)
        for slot in shelf.slots[shelf.num_ready :]:
            if not (size := reading.get(slot, 0)):
                continue
            stretches.append(Stretch(slot, len(tokens), size))
            tokens += slot.row.tokens[slot.size : slot.size + size]
            positions += range(slot.size, slot.size + size)
            models += [slot.row.model] * size
            if size == slot.left:
                outputs.append(len(tokens) - 1)
                rows.append(slot.row)
        if len(tokens) > at:
            parts.append(_part(shelf, at, positions[at:], stretches, windows))
    device = shelves[0].kept.device
    all_write = len(outputs) == len(tokens)
    return Step(
        torch.tensor(tokens, device=device),
        torch.tensor(positions, device=device),
        max(positions) + 1,
        tuple(parts),
        None if all_write else torch.tensor(outputs, dtype=torch.long, device=device),
        rows,
        models if any(models) else [],
    )


def _part(
    shelf: Shelf,
    at: int,
    positions: list[int],
    stretches: list[Stretch],
    windows: Sequence[int | None],
) -> Part:
    device, ready = shelf.kept.device, shelf.num_ready
    heads, length = shelf.kept.shape[2], shelf.length
    places = [slot.place for slot in shelf.slots[:ready]]
    for stretch in stretches:
        places += [stretch.slot.place] * stretch.size
        for window in windows:
            stretch.seen[window] = _seen_by_stretch(stretch, window, device)
    where, when = torch.tensor(places, device=device), torch.tensor(positions, device=device)
    first = where * (heads * length) + when
    into = (first[:, None] + torch.arange(0, heads * length, length, device=device)).view(-1)
    dtype = shelf.kept.dtype
    seen = {window: _seen(positions[:ready], window, device, dtype) for window in windows}
    return Part(shelf, at, len(positions), ready, seen, tuple(stretches), into)


def _seen(
    positions: list[int], window: int | None, device: torch.device, dtype: torch.dtype
) -> Seen:
    """Say what each of several texts' last tokens sees."""
    if not positions:
        return 0, 0, None
    least, most = min(positions), max(positions)
    start = 0 if window is None else max(0, least + 1 - window)
    if least == most:
        return start, most + 1, None
    start -= start % 8  # kernels of GPUs want masks of such sizes, and slots end at such places
    stop = -(-(most + 1) // 8) * 8
    when = torch.tensor(positions, device=device)[:, None]
    places = torch.arange(start, stop, device=device)
    hidden = places > when
    if window is not None:
        hidden |= places <= when - window
    mask = torch.zeros(hidden.shape, dtype=dtype, device=device)
    return start, stop, mask.masked_fill_(hidden, float("-inf"))[:, None, None]


def _seen_by_stretch(stretch: Stretch, window: int | None, device: torch.device) -> Seen:
    """Say what tokens of one text see; no mask where each sees all before it."""
    first, stop = stretch.slot.size, stretch.slot.size + stretch.size
    start = 0 if window is None else max(0, first + 1 - window)
    whole = first == 0 and (window is None or stop <= window)
    if whole or stretch.size == 1:
        return start, stop, None
    when = torch.arange(first, stop, device=device)[:, None]
    places = torch.arange(start, stop, device=device)
    seen = places <= when
    if window is not None:
        seen &= places > when - window
    return start, stop, seen
