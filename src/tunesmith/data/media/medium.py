"""What messages hold: a file, or a data: address; never anything from a network."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.data.formats.format import Fields
from tunesmith.data.formats.media import place_media
from tunesmith.data.media.images import (
    LONGEST_NAME,
    MOST_BYTES,
    MOST_PIXELS,
    decode,
    hash_of,
    measure,
    read_image,
    shrink,
)
from tunesmith.data.media.senses import Senses, Shown
from tunesmith.data.media.sounds import measure_sound, read_sound
from tunesmith.data.rows import Medium, Message, Place, RowFault, image_file, spell
from tunesmith.errors import DataError
from tunesmith.paths import expand

ADDRESS = re.compile(r"data:([\w.+/-]*)(?:;[\w.+-]+=[\w.+-]*)*(;base64)?,", re.ASCII)
HERE = Place("messages", 1)
"""Where prompts stand that are in no file; what they show is named by whole paths."""
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?=//)|(data|file|https?|ftp):", re.IGNORECASE)


@dataclass(frozen=True)
class Showing:
    """How a set shows things.

    Attributes:
        folder: where files lie that rows name; None for the folder of the rows' file.
        pixels: most pixels of an image, others are made smaller; None leaves all.
    """

    folder: Path | None = None
    pixels: int | None = None

    def settle(self, medium: Medium) -> Medium:
        """Write into a medium where it lies, and how large it may be."""
        source = medium.source
        if self.folder is not None and not medium.is_address and not SCHEME.match(source):
            source = str(expand(self.folder).absolute() / expand(source))
        return replace(medium, source=source, pixels=self.pixels or 0)


def show_media(
    messages: Sequence[Message], fields: Fields, place: Place, how: Showing
) -> tuple[Message, ...]:
    """Give messages what their row shows, and look at each once.

    Raises:
        RowFault: if something is missing, or cannot be read.
    """
    placed = place_media(messages, fields)
    return tuple(
        replace(
            message,
            media=tuple(look_at_medium(how.settle(each), place) for each in message.media),
        )
        if message.media
        else message
        for message in placed
    )


def look_at_medium(medium: Medium, place: Place) -> Medium:
    """Read the beginning of what a message holds, and note the hash of all its bytes.

    Raises:
        RowFault: if it is missing, damaged, too large, or lies elsewhere than on this machine.
    """
    if medium.kind == "video":
        return medium  # no model takes one
    content, name = _read(medium, place)
    (measure if medium.kind == "image" else measure_sound)(content, name)
    return medium if medium.sha256 else replace(medium, sha256=hash_of(content))


def open_medium(medium: Medium, place: Place) -> Any:
    """Decode what a message holds.

    Raises:
        RowFault: if it is gone, damaged, or not what it was when its row was read.
    """
    content, name = _read(medium, place)
    if medium.sha256 and hash_of(content) != medium.sha256:
        raise RowFault(f"{medium.kind} {spell(name.name, LONGEST_NAME)} changed since it was read")
    if medium.kind == "audio":
        return read_sound(content, name)
    return shrink(decode(content, name), medium.pixels)


@dataclass(frozen=True)
class Shows:
    """What a row shows, and who reads it."""

    senses: Senses
    media: tuple[Medium, ...]
    place: Place

    def open(self) -> list[Shown]:
        """Decode all of it.

        Raises:
            DataError: if something is gone, damaged, or not what it was.
        """
        try:
            return [(medium.kind, open_medium(medium, self.place)) for medium in self.media]
        except RowFault as fault:
            raise DataError(
                str(fault), hint="put the file back as it was", where=str(self.place)
            ) from None


def open_all(media: Sequence[Medium]) -> list[Shown]:
    """Decode what is named by whole paths, or addresses.

    Raises:
        RowFault: if one cannot be read.
    """
    return [(medium.kind, open_medium(medium, HERE)) for medium in media]


def look_at_all(media: Sequence[Medium]) -> list[Medium]:
    """Look at what one prompt shows, named by whole paths, or addresses.

    Raises:
        RowFault: if one cannot be read, or all together would fill the memory.
    """
    pixels = sum(measure(*_read(medium, HERE)) for medium in media if medium.kind == "image")
    if pixels > MOST_PIXELS:
        raise RowFault(f"all images have {pixels:,} pixels together, over {MOST_PIXELS:,}")
    return [look_at_medium(medium, HERE) for medium in media]


def _read(medium: Medium, place: Place) -> tuple[bytes, Path]:
    if medium.is_address:
        return read_address(medium.source), Path(f"data: address ({medium.kind})")
    if SCHEME.match(medium.source):
        raise RowFault(
            f"{spell(medium.source)} is an address, and nothing is downloaded; give a file"
        )
    path = image_file(medium.source, place)
    return read_image(path), path


def read_address(address: str) -> bytes:
    """Return what a data: address holds.

    Raises:
        RowFault: if it is no base64, or too large.
    """
    found = ADDRESS.match(address)
    if found is None or found[2] is None:
        raise RowFault("a data: address holds no base64")
    if len(address) > MOST_BYTES // 3 * 4:
        raise RowFault(f"a data: address has over {MOST_BYTES:,} bytes")
    try:
        return base64.b64decode(address[found.end() :], validate=True)
    except (binascii.Error, ValueError):
        raise RowFault("a data: address holds no base64") from None
