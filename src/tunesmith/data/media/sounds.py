"""Sounds: WAV files of plain numbers, read by the standard library."""

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

MOST_SAMPLES = 1 << 26
"""More than an hour at 16,000 a second; more are a mistake, or meant to fill the memory."""
FAILURES = (wave.Error, EOFError, ValueError, OSError)
WIDTHS: dict[int, Any] = {1: np.uint8, 2: "<i2", 4: "<i4"}


@dataclass(frozen=True)
class Sound:
    """A sound of one channel.

    Attributes:
        numbers: from -1 to 1, [samples], fp32.
        rate: samples a second.
    """

    numbers: npt.NDArray[np.float32]
    rate: int


def measure_sound(content: bytes, name: Path) -> None:
    """Read how a sound begins.

    Raises:
        RowFault: if it is no WAV file, or too long.
    """
    _check(content, name)


def read_sound(content: bytes, name: Path) -> Sound:
    """Read a sound; of several channels the mean.

    Raises:
        RowFault: if it is no WAV file, or too long.
    """
    width, channels, rate, samples = _check(content, name)
    with wave.open(io.BytesIO(content)) as file:
        raw = file.readframes(samples)
    if width == 3:
        padded = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        wide = np.zeros((len(padded), 4), np.uint8)
        wide[:, 1:] = padded
        values = wide.view("<i4")[:, 0].astype(np.float64) / 2**31
    else:
        values = np.frombuffer(raw, WIDTHS[width]).astype(np.float64)
        values = (values - 128) / 128 if width == 1 else values / 2 ** (8 * width - 1)
    mono = values.reshape(-1, channels).mean(axis=1).astype(np.float32)
    return Sound(mono, rate)


def _check(content: bytes, name: Path) -> tuple[int, int, int, int]:
    """Return bytes a number, channels, samples a second, and samples."""
    called = spell(name.name, LONGEST_NAME)
    try:
        with wave.open(io.BytesIO(content)) as file:
            found = (
                file.getsampwidth(),
                file.getnchannels(),
                file.getframerate(),
                file.getnframes(),
            )
    except FAILURES as problem:
        raise RowFault(
            f"the sound {called} is no WAV file of plain numbers: {str(problem) or 'it ends early'}"
        ) from None
    width, channels, _, samples = found
    if samples * channels > MOST_SAMPLES:
        raise RowFault(f"the sound {called} has {samples:,} samples, over {MOST_SAMPLES:,}")
    if not samples or len(content) < samples * width * channels:
        raise RowFault(f"the sound {called} is damaged: it is shorter than it says")
    return found
