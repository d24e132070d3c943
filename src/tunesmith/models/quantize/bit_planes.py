"""Whole numbers of few bits, without a bit lost between them.

Eight numbers take as many bytes as each has bits: those of 3 bits lie in a plane of 2 and one of 1.
"""

from __future__ import annotations

import torch

PLANES = {1: (1,), 2: (2,), 3: (2, 1), 4: (4,), 8: (8,)}
"""How many bits of each number lie together, the lowest first."""
TOGETHER = 8
"""Numbers that fill whole bytes in every plane."""


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Put whole numbers below 2^bits together; [any] to [bytes]."""
    flat = codes.flatten().to(torch.uint8)
    missing = -len(flat) % TOGETHER
    flat = torch.cat([flat, flat.new_zeros(missing)]) if missing else flat
    planes, low = [], 0
    for width in PLANES[bits]:
        parts = (flat >> low & 2**width - 1).view(8 // width, -1)
        plane = torch.zeros_like(parts[0])
        for place, part in enumerate(parts):
            plane |= part << place * width
        planes.append(plane)
        low += width
    return torch.cat(planes)


def unpack(packed: torch.Tensor, bits: int, count: int) -> torch.Tensor:
    """Take whole numbers apart again; [bytes] to [count], of 8 bits each."""
    padded = count + -count % TOGETHER
    codes = packed.new_zeros(padded)
    begin = low = 0
    for width in PLANES[bits]:
        end = begin + padded * width // 8
        plane, parts = packed[begin:end], codes.view(8 // width, -1)
        for place in range(len(parts)):
            parts[place] |= (plane >> place * width & 2**width - 1) << low
        begin, low = end, low + width
    return codes[:count]


def packed_bytes(count: int, bits: int) -> int:
    """Count the bytes that whole numbers take."""
    return (count + -count % TOGETHER) * bits // 8
