"""Images: looked at when rows are read, decoded when a batch is made, never held for all rows."""

from __future__ import annotations

import hashlib
import io
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.data.rows import RowFault, spell
from tunesmith.errors import DataError

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_BYTES = 1 << 28
MOST_PIXELS = 1 << 26
"""As many as a camera makes; more are a mistake, or meant to fill the memory."""
LONGEST_NAME = 200
KINDS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What is read; Pillow knows others, of which one starts another program."""
END_OF_JPEG = b"\xff\xd9"
GREY_16 = ("I;16", "I;16B", "I;16L")
NUMBERS = ("I", "F")
"""Modes of Pillow: greys of 16 bits, and numbers that have no white."""
FAILURES = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError)
"""How Pillow fails at files that are no images, or damaged."""


@dataclass(frozen=True)
class Picture:
    """An image that lies in a file.

    Attributes:
        sha256: hash of its bytes when its row was read.
    """

    path: Path
    sha256: str

    def open(self) -> Image:
        """Decode it, upright and in three colours, as transformers does.

        Raises:
            DataError: if it is gone, damaged, or not what it was.
        """
        try:
            content = read_image(self.path)
            if hashlib.sha256(content).hexdigest() != self.sha256:
                raise RowFault(f"the image {self.path.name} changed since its row was read")
            return decode(content, self.path)
        except RowFault as fault:
            raise DataError(
                str(fault), hint="put the image back as it was", where=str(self.path)
            ) from None


def look_at(path: Path) -> str:
    """Look whether an image can be read, and return the hash of all its bytes.

    Raises:
        RowFault: if it is missing, no image, or too large.
    """
    content = read_image(path)
    measure(content, path)
    return hash_of(content)


def measure(content: bytes, path: Path) -> int:
    """Count an image's pixels before any is decoded, and look whether its file is whole.

    Raises:
        RowFault: if it is no image, has too many pixels, or its end is missing.
    """
    with faults(path):
        from PIL import Image

        with Image.open(io.BytesIO(content), formats=KINDS) as image:
            width, height = image.size
    if width * height > MOST_PIXELS:
        raise RowFault(
            f"the image {_name(path)} has {width:,} x {height:,} pixels, over {MOST_PIXELS:,}"
        )
    if not _ends(content):
        _look_through(content, path)
    return width * height


def _ends(content: bytes) -> bool:
    """Whether a file is as long as it says, of the kinds that tell so at little cost."""
    if content[:4] == b"RIFF":
        return int.from_bytes(content[4:8], "little") + 8 <= len(content)
    return content.rstrip(b"\0").endswith(END_OF_JPEG)


def _look_through(content: bytes, path: Path) -> None:
    """Find out whether the end of an image is missing: by its parts, or by decoding it."""
    with faults(path):
        from PIL import Image

        with Image.open(io.BytesIO(content), formats=KINDS) as image:
            if image.mode in NUMBERS:
                raise RowFault(
                    f"the image {_name(path)} holds numbers of 32 bits, and nobody says which "
                    "are black and white; save it with 8 or 16"
                )
            if image.format == "PNG":
                image.verify()
            else:
                image.load()


def hash_of(content: bytes) -> str:
    """Hash the bytes of a file."""
    return hashlib.sha256(content).hexdigest()


def read_image(path: Path, what: str = "image") -> bytes:
    """Read the bytes of an image, or of what else a row shows.

    Raises:
        RowFault: if there is no such file, or it is too large.
    """
    try:
        size = path.stat().st_size
        if not path.is_file():  # a pipe may never end
            raise RowFault(f"the {what} {_name(path)} is no file")
        if size > MOST_BYTES:
            raise RowFault(f"the {what} {_name(path)} has over {MOST_BYTES:,} bytes")
        return path.read_bytes()
    except (OSError, ValueError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else problem
        raise RowFault(
            f"the {what} {spell(str(path), LONGEST_NAME)} cannot be read: {reason}"
        ) from None


def decode(content: bytes, path: Path) -> Image:
    """Decode an image, upright and in three colours.

    Raises:
        RowFault: if it is damaged.
    """
    with faults(path):
        from PIL import Image, ImageOps

        with Image.open(io.BytesIO(content), formats=KINDS) as image:
            upright = ImageOps.exif_transpose(image)
            if upright.mode in GREY_16:  # Pillow would call all but the darkest white
                upright = upright.convert("I").point(lambda grey: grey / 256).convert("L")
            return upright.convert("RGB")


def shrink(image: Image, pixels: int) -> Image:
    """Make an image of more than so many pixels smaller, as high for its width; 0 leaves all."""
    width, height = image.size
    if not pixels or width * height <= pixels:
        return image
    factor = math.sqrt(pixels / (width * height))
    return image.resize((max(int(width * factor), 1), max(int(height * factor), 1)))


@contextmanager
def faults(path: Path, kind: str = "image") -> Iterator[None]:
    """Say of a file that cannot be decoded what is wrong with it, in one way."""
    from PIL.Image import DecompressionBombError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is odd and can be decoded all the same
        try:
            yield
        except (*FAILURES, DecompressionBombError) as problem:
            what = f"is no {kind} that can be read" if _is_unknown(problem) else "is damaged"
            if _is_unknown(problem) and kind == "image":
                what += f" ({', '.join(KINDS)})"
            reason = "" if _is_unknown(problem) else f": {str(problem).splitlines()[0]}"
            raise RowFault(f"the {kind} {_name(path)} {what}{reason}") from None


def _name(path: Path) -> str:
    return spell(path.name, LONGEST_NAME)


def _is_unknown(problem: Exception) -> bool:
    from PIL import UnidentifiedImageError

    return isinstance(problem, UnidentifiedImageError) or not str(problem)
