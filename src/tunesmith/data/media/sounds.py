"""Sounds: WAV files of plain numbers by the standard library, other files by soundfile."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.media.images import LONGEST_NAME
from tunesmith.data.rows import RowFault, spell
from tunesmith.errors import MissingPackage, require

MOST_SAMPLES = 1 << 26
"""More than an hour at 16,000 a second; more are a mistake, or meant to fill the memory."""
MOST_RATE = 1 << 20
FAILURES = (wave.Error, EOFError, ValueError, OSError)
WIDTHS: dict[int, Any] = {1: np.uint8, 2: "<i2", 4: "<i4"}
ODD = 3
"""Bytes of a number that no type of numpy has."""
FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3", "MPEG", "AIFF")


@dataclass(frozen=True)
class Sound:
    """A sound of one channel.

    Attributes:
        numbers: from -1 to 1, [samples], fp32.
        rate: samples a second.
    """

    numbers: npt.NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class _Head:
    """How a sound is; width is the bytes of a plain number, 0 where numbers are written else."""

    width: int
    channels: int
    rate: int
    samples: int


def measure_sound(content: bytes, name: Path) -> int:
    """Read how a sound begins, and count the numbers of all its channels.

    Raises:
        RowFault: if it is no sound that can be read, or too long.
    """
    head = _check(content, name)
    return head.samples * head.channels


def read_sound(content: bytes, name: Path) -> Sound:
    """Read a sound; of several channels the mean.

    Raises:
        RowFault: if it is no sound that can be read, damaged, or too long.
    """
    head = _check(content, name)
    values: npt.NDArray[Any] = (
        _read_plain(content, head) if head.width else _read_other(content, name)
    )
    if not len(values) or len(values) < head.samples:
        raise _fault(name, "is damaged: it is shorter than it says")
    if not np.isfinite(values).all():
        raise _fault(name, "is damaged: it holds numbers that are none")
    return Sound(values.mean(axis=1).astype(np.float32), head.rate)


def _read_plain(content: bytes, head: _Head) -> npt.NDArray[np.float64]:
    with wave.open(io.BytesIO(content)) as file:
        raw = file.readframes(head.samples)
    if head.width == ODD:
        padded = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(padded), 4), np.uint8)
        wide[:, 1:] = padded
        values = wide.view("<i4")[:, 0].astype(np.float64) / 2**31
    else:
        values = np.frombuffer(raw, WIDTHS[head.width]).astype(np.float64)
        values = (values - 128) / 128 if head.width == 1 else values / 2 ** (8 * head.width - 1)
    return values.reshape(-1, head.channels)


def _read_other(content: bytes, name: Path) -> npt.NDArray[np.float32]:
    soundfile: Any = require("soundfile", extra="audio")
    try:
        values, _ = soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, *FAILURES) as problem:
        raise _fault(name, f"is damaged: {problem}") from None
    found: npt.NDArray[np.float32] = values
    return found


def _check(content: bytes, name: Path) -> _Head:
    try:
        with wave.open(io.BytesIO(content)) as file:
            head = _Head(
                file.getsampwidth(), file.getnchannels(), file.getframerate(), file.getnframes()
            )
    except FAILURES as problem:
        head = _look_closer(content, name, str(problem) or "it ends early")
    if head.width not in (0, *WIDTHS, ODD):
        raise _fault(name, f"has numbers of {8 * head.width} bits; 8 to 32 are read")
    if head.samples * head.channels > MOST_SAMPLES:
        raise _fault(name, f"has {head.samples:,} samples, over {MOST_SAMPLES:,}")
    if not 0 < head.rate <= MOST_RATE:
        raise _fault(name, f"has {head.rate:,} samples a second")
    if not head.samples or len(content) < head.samples * head.width * head.channels:
        raise _fault(name, "is damaged: it is shorter than it says")
    return head


def _look_closer(content: bytes, name: Path, reason: str) -> _Head:
    """Read how a sound begins that is no WAV file of plain numbers."""
    try:
        soundfile: Any = require("soundfile", extra="audio")
    except MissingPackage as missing:
        raise _fault(
            name,
            f"is no WAV file of plain numbers: {reason}; others are read by soundfile: "
            f"{missing.hint}",
        ) from None
    try:
        found = soundfile.info(io.BytesIO(content))
    except (soundfile.SoundFileError, *FAILURES):
        raise _fault(name, "is no sound that can be read (wav, flac, ogg, mp3, aiff)") from None
    if found.format not in FORMATS:
        raise _fault(name, f"is of the format {found.format}; read are wav, flac, ogg, mp3, aiff")
    return _Head(0, found.channels, found.samplerate, found.frames)


def _fault(name: Path, what: str) -> RowFault:
    return RowFault(f"the sound {spell(name.name, LONGEST_NAME)} {what}")
