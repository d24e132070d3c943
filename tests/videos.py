"""Tiny videos, made on the spot."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

Frames = npt.NDArray[np.uint8]
CODECS = {
    ".mp4": "libx264",
    ".mov": "libx264",
    ".webm": "libvpx-vp9",
    ".avi": "mpeg4",
    ".mkv": "ffv1",
}
COLOURS = {"red": (230, 40, 40), "green": (40, 200, 40), "blue": (40, 40, 230)}


def make_frames(
    count: int, *, size: tuple[int, int] = (32, 24), colour: tuple[int, int, int] = (200, 90, 40)
) -> Frames:
    """Make frames of one colour that become lighter, each by 2 of 255."""
    width, height = size
    one = np.full((height, width, 3), colour, np.int64)
    return np.stack([np.clip(one + 2 * at, 0, 255) for at in range(count)]).astype(np.uint8)


def make_noise(count: int, *, size: tuple[int, int] = (32, 24), seed: int = 0) -> Frames:
    """Make frames that have nothing in common."""
    width, height = size
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), np.uint8)


def write_film(path: Path, frames: Frames, *, fps: Fraction | int = 10) -> Path:
    """Write a file of a video; of an mkv no bit is lost."""
    codec = CODECS[path.suffix]
    with av.open(str(path), "w") as file:
        stream = file.add_stream(codec, rate=fps)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())
    return path


def cut_film(path: Path, to: Path, *, seconds: float) -> Path:
    """Let a film begin later without encoding it anew: what comes before is kept, and not shown."""
    with av.open(str(path)) as source, av.open(str(to), "w") as file:
        copied = file.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is None or packet.dts is None:
                continue
            later = int(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts - later, packet.dts - later
            packet.stream = copied
            file.mux(packet)
    return to


def write_animation(path: Path, frames: Frames, *, seconds: float = 0.1) -> Path:
    """Write an animated image, of whose frames each is shown as long."""
    first, *rest = (Image.fromarray(frame) for frame in frames)
    options = {"lossless": True} if path.suffix == ".webp" else {}
    first.save(path, save_all=True, append_images=rest, duration=int(seconds * 1000), **options)
    return path


def write_stills(folder: Path, frames: Frames) -> Sequence[str]:
    """Write each frame as an image, and return their names in order."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{at:03}.png" for at in range(len(frames))]
    for name, frame in zip(names, frames, strict=True):
        Image.fromarray(frame).save(folder / name)
    return names
