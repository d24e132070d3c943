"""Files of videos, read by PyAV."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.media.clip import Clip, check_size, fault
from tunesmith.errors import MissingPackage, require

if TYPE_CHECKING:
    from PIL.Image import Image

READ = "mp4, mov, mkv, webm, avi; or an animated gif, webp or png"
KINDS = {b"\x1aE\xdf\xa3": "matroska", b"RIFF": "avi"}
BOXES = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
"""How files of MP4 and QuickTime begin, after four bytes."""
MICRO = 1_000_000
SHORT = 0.9
"""A file that holds less than this of the time that it names is cut."""


def measure_film(content: bytes, name: Path) -> Clip:
    """Count the frames of a file by its packets: what a header says may be missing, or wrong.

    Raises:
        RowFault: if it is no video, damaged, or too large.
    """
    with _open(content, name) as file:
        stream = file.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        check_size(name, stream.frames, width, height)
        there = total = 0
        ends = 0.0
        for packet in file.demux():
            if packet.size and packet.pts is not None:
                ends = max(ends, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if packet.size and packet.stream is stream:
                there += 1
                total += not packet.is_discard  # shown by none, as before where a film was cut
        lasts, begins = (file.duration or 0) / MICRO, (file.start_time or 0) / MICRO
        rate = stream.average_rate or stream.guessed_rate
    if not total or not rate or not width or not height:
        raise fault(name, "holds no pictures")
    if there < stream.frames or ends - begins < lasts * SHORT:
        raise fault(name, "is damaged: it is shorter than it says")
    check_size(name, total, width, height)
    return Clip(total, float(rate), width, height)


def decode_film(content: bytes, name: Path, wanted: Sequence[int]) -> Iterator[tuple[int, Image]]:
    """Decode some frames, upright and in order, from the beginning.

    Raises:
        RowFault: if it is damaged.
    """
    waiting = set(wanted)
    with _open(content, name) as file:
        for at, frame in enumerate(file.decode(video=0)):
            if at in waiting:
                waiting.remove(at)
                yield at, frame.to_image().rotate(frame.rotation, expand=True)
            if not waiting:
                return


@contextmanager
def _open(content: bytes, name: Path) -> Iterator[Any]:
    """Open a file as the format that it begins as, and nothing else that it names."""
    if not content:
        raise fault(name, "is empty")
    kind = "mov" if content[4:8] in BOXES else KINDS.get(content[:4], "")
    if not kind or (kind == "avi" and content[8:12] != b"AVI "):
        raise fault(name, f"is no video that can be read ({READ})")
    try:
        av: Any = require("av", extra="video")
    except MissingPackage as missing:
        raise fault(name, f"is read by PyAV, and {missing.message}: {missing.hint}") from None
    alone = {"protocol_whitelist": "none"}
    try:
        with av.open(io.BytesIO(content), format=kind, options=alone) as file:
            if not file.streams.video:
                raise fault(name, "holds no pictures")
            yield file
    except av.error.FFmpegError as problem:
        raise fault(name, f"is damaged: {problem.strerror}") from None
