"""Videos: frames evenly spread over a file, or images in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tunesmith.data.media.animations import decode_animation, measure_animation, open_animation
from tunesmith.data.media.clip import LONGEST, Clip, fault
from tunesmith.data.media.films import decode_film, measure_film
from tunesmith.data.media.images import LONGEST_NAME, decode, measure, shrink
from tunesmith.data.rows import RowFault, spell

FPS = 2.0
MOST_FRAMES = 128
FEWEST = 4
"""As transformers' Qwen3-VL takes of a short video; fewer only where there are no more."""
ALL_PIXELS = 1 << 25
"""Of all frames that are taken; larger ones are made smaller, however many there are."""
Still = tuple[bytes, Path]
"""What a file holds that is a frame, and its name."""


@dataclass(frozen=True)
class Frames:
    """Which frames of a video are taken.

    Attributes:
        fps: frames a second.
        most: how many at most.
        pixels: larger frames are made smaller; 0 leaves them.
    """

    fps: float = FPS
    most: int = MOST_FRAMES
    pixels: int = 0

    def pick(self, total: int, fps: float) -> list[int]:
        """Spread frames evenly from the first to the last, as transformers does for Qwen3-VL.

        An only frame is taken twice: families take frames in pairs.
        """
        count = min(max(int(total / fps * self.fps), FEWEST), self.most, total)
        places = np.linspace(0, total - 1, max(count, 2)).round().astype(int)
        return [int(place) for place in places]

    def size(self, count: int) -> int:
        """Say how many pixels each of so many frames may have."""
        share = ALL_PIXELS // count
        return min(self.pixels, share) if self.pixels else share


@dataclass(frozen=True)
class Video:
    """The frames of a video that are shown.

    Attributes:
        frames: in three colours, [frames, height, width, 3], uint8.
        indices: which of all frames they are.
        total: how many there are in all.
        fps: how many of all there are a second.
    """

    frames: npt.NDArray[np.uint8]
    indices: tuple[int, ...]
    total: int
    fps: float


def measure_video(content: bytes, name: Path) -> Clip:
    """Read how a video is, without showing it.

    Raises:
        RowFault: if it is no video, damaged, or too large.
    """
    animation = open_animation(content, name)
    if animation is None:
        return measure_film(content, name)
    return measure_animation(animation, name)


def read_video(content: bytes, name: Path, how: Frames) -> Video:
    """Decode the frames of a video that are taken.

    Raises:
        RowFault: if it is no video, damaged, or too large.
    """
    clip = measure_video(content, name)
    indices = how.pick(clip.total, clip.fps)
    wanted, pixels = list(dict.fromkeys(indices)), how.size(len(indices))
    animation = open_animation(content, name)
    found = (
        decode_film(content, name, wanted)
        if animation is None
        else decode_animation(animation, name, wanted)
    )
    kept = {at: np.asarray(shrink(image, pixels), np.uint8) for at, image in found}
    if len(kept) < len(wanted):
        raise fault(name, "is damaged: it is shorter than it says")
    return Video(np.stack([kept[at] for at in indices]), tuple(indices), clip.total, clip.fps)


def measure_stills(stills: Sequence[Still]) -> None:
    """Look at images that are the frames of a video, in order.

    Raises:
        RowFault: if there are too many, or one is no image.
    """
    if len(stills) > LONGEST:
        raise RowFault(f"a video is a list of {len(stills):,} frames, over {LONGEST:,}")
    for content, name in stills:
        measure(content, name)


def read_stills(stills: Sequence[Still], how: Frames) -> Video:
    """Decode images as the frames of a video that holds as many a second as are taken.

    Raises:
        RowFault: if one is no image, or of another size than the first.
    """
    indices = how.pick(len(stills), how.fps)
    pixels = how.size(len(indices))
    kept = {at: np.asarray(shrink(decode(*stills[at]), pixels), np.uint8) for at in indices}
    for at, frame in kept.items():
        if frame.shape != kept[indices[0]].shape:
            name = spell(stills[at][1].name, LONGEST_NAME)
            raise RowFault(f"the frame {name} has another size than the first one of its video")
    return Video(np.stack([kept[at] for at in indices]), tuple(indices), len(stills), how.fps)
