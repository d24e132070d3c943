"""What is known of a video before it is decoded, and how much one may hold."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunesmith.data.media.images import LONGEST_NAME, MOST_PIXELS
from tunesmith.data.rows import RowFault, spell

LONGEST = 1 << 17
"""Frames of a file: more than an hour at 30 a second."""
MOST_DECODED = 1 << 35
"""Pixels of all frames of a file: nine minutes of 1920 x 1080 at 30 a second."""


@dataclass(frozen=True)
class Clip:
    """How a video is before it is decoded.

    Attributes:
        total: its frames.
        fps: frames a second.
    """

    total: int
    fps: float
    width: int
    height: int


def check_size(name: Path, total: int, width: int, height: int) -> None:
    """Refuse what would fill the memory, or take too long to decode.

    Raises:
        RowFault: saying how much it is.
    """
    if width * height > MOST_PIXELS:
        raise fault(name, f"has {width:,} x {height:,} pixels, over {MOST_PIXELS:,}")
    if total > LONGEST:
        raise fault(name, f"has {total:,} frames, over {LONGEST:,}; cut it into parts")
    if total * width * height > MOST_DECODED:
        raise fault(
            name,
            f"has {total:,} frames of {width:,} x {height:,}, over {MOST_DECODED:,} pixels in "
            "all; cut it into parts, or make it smaller",
        )


def fault(name: Path, what: str) -> RowFault:
    """Say what is wrong with a video."""
    return RowFault(f"the video {spell(name.name, LONGEST_NAME)} {what}")
