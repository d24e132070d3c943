"""Animated images as videos, read by Pillow."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.media.clip import Clip, check_size, fault
from tunesmith.data.media.images import KINDS, faults

if TYPE_CHECKING:
    from PIL.Image import Image

ANIMATED = ("GIF", "WEBP", "PNG")
STILL_SECONDS = 0.1
"""How long a frame is shown that says nothing, or 0, as browsers do."""


def open_animation(content: bytes, name: Path) -> Any:
    """Open an animated image; None for a file that is no image.

    Raises:
        RowFault: if it does not move, or is damaged.
    """
    from PIL import Image, UnidentifiedImageError

    with faults(name, "video"):
        try:
            image: Any = Image.open(io.BytesIO(content), formats=KINDS)
        except UnidentifiedImageError:
            return None
        if image.format not in ANIMATED or image.n_frames < 2:
            raise fault(name, "is a single image, not a video")
        return image


def measure_animation(image: Any, name: Path) -> Clip:
    """Count frames and seconds.

    Raises:
        RowFault: if it is damaged, or too large.
    """
    total, seconds = int(image.n_frames), 0.0
    check_size(name, total, *image.size)
    with faults(name, "video"):
        for at in range(total):
            image.seek(at)
            image.load()  # a WebP says only then how long
            seconds += image.info.get("duration", 0) / 1000 or STILL_SECONDS
    return Clip(total, total / seconds, *image.size)


def decode_animation(image: Any, name: Path, wanted: Sequence[int]) -> Iterator[tuple[int, Image]]:
    """Decode some frames, in order.

    Raises:
        RowFault: if it is damaged.
    """
    for at in wanted:
        with faults(name, "video"):
            image.seek(at)
            frame = image.convert("RGB")
        yield at, frame
