"""Products into memory that is taken beforehand, and found again."""

from __future__ import annotations

import torch


def take_room(like: torch.Tensor, rows: int, width: int) -> torch.Tensor | None:
    """Take memory for products, [rows, width] of a tensor's type and device.

    None in 16 bits: into given memory a CPU multiplies them far more slowly.
    """
    return like.new_empty(rows, width) if like.dtype == torch.float32 else None


def multiply_into(
    room: torch.Tensor | None, left: torch.Tensor, right: torch.Tensor
) -> torch.Tensor:
    """Multiply [rows, any] by [any, width] into the first rows of the room, if there is one.

    A room that is filled is returned itself: what is no view of another may be added to in place.
    """
    if room is None:
        return left @ right
    taken = room if len(room) == len(left) else room[: len(left)]
    return torch.mm(left, right, out=taken)
