"""What messages hold: a file, or a data: address; never anything from a network."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
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
from tunesmith.data.media.videos import (
    FPS,
    MOST_FRAMES,
    Frames,
    measure_stills,
    measure_video,
    read_stills,
    read_video,
)
from tunesmith.data.rows import Medium, Message, Place, RowFault, image_file, is_address, spell
from tunesmith.errors import DataError
from tunesmith.paths import expand
from tunesmith.recipe.data import Data

ADDRESS = re.compile(r"data:([\w.+/-]*)(?:;[\w.+-]+=[\w.+-]*)*(;base64)?,", re.ASCII)
MOST_SENT = 1 << 32
"""Pixels of all frames of the videos that a prompt brings along: a minute of 1920 x 1080 at 30."""
MOST_HEARD = 1 << 24
"""Samples of all sounds of a prompt: minutes, of which few bytes may be left in a file."""
HERE = Place("messages", 1)
"""Where prompts stand that are in no file; what they show is named by whole paths."""
MEASURES: dict[str, Callable[[bytes, Path], object]] = {
    "image": measure,
    "video": measure_video,
    "audio": measure_sound,
}
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?=//)|(data|file|https?|ftp):", re.IGNORECASE)


@dataclass(frozen=True)
class Showing:
    """How a set shows things.

    Attributes:
        folder: where files lie that rows name; None for the folder of the rows' file.
        pixels: most pixels of an image, others are made smaller; None leaves all.
        video: which frames of videos are taken; None as usual.
    """

    folder: Path | None = None
    pixels: int | None = None
    video: Frames | None = None

    def settle(self, medium: Medium) -> Medium:
        """Write into a medium where it lies, how large it may be, and what is taken of it."""
        medium = replace(medium, source=medium.each(self._find))
        if medium.kind != "video" or self.video is None:
            return replace(medium, pixels=self.pixels or 0) if medium.kind == "image" else medium
        video = self.video
        return replace(medium, pixels=video.pixels, fps=video.fps, frames=video.most)

    def _find(self, source: str) -> str:
        if self.folder is None or is_address(source) or SCHEME.match(source):
            return source
        return str(expand(self.folder).absolute() / expand(source))


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


def as_shown(medium: Medium, shows: Data | None) -> Medium:
    """Show something as the run of a model did, where nothing else is said of it."""
    if shows is None or medium.pixels or medium.fps or medium.kind == "audio":
        return medium
    if medium.kind == "image":
        return replace(medium, pixels=shows.image_pixels or 0)
    return replace(
        medium,
        pixels=shows.video_pixels or 0,
        fps=shows.video_fps,
        frames=shows.video_frames,
    )


def look_at_medium(medium: Medium, place: Place) -> Medium:
    """Read the beginning of what a message holds, and note the hash of all its bytes.

    Raises:
        RowFault: if it is missing, damaged, too large, or lies elsewhere than on this machine.
    """
    found = _read_all(medium, place)
    if not isinstance(medium.source, str):
        measure_stills(found)
    else:
        MEASURES[medium.kind](*found[0])
    return medium if medium.sha256 else replace(medium, sha256=_hash(found))


def open_medium(medium: Medium, place: Place) -> Any:
    """Decode what a message holds.

    Raises:
        RowFault: if it is gone, damaged, or not what it was when its row was read.
    """
    found = _read_all(medium, place)
    content, name = found[0]
    if medium.sha256 and _hash(found) != medium.sha256:
        raise RowFault(f"{medium.kind} {spell(name.name, LONGEST_NAME)} changed since it was read")
    if medium.kind == "audio":
        return read_sound(content, name)
    if medium.kind == "image":
        return shrink(decode(content, name), medium.pixels)
    how = _frames_of(medium)
    if isinstance(medium.source, str):
        return read_video(content, name, how)
    return read_stills(found, how)


def _frames_of(medium: Medium) -> Frames:
    return Frames(medium.fps or FPS, medium.frames or MOST_FRAMES, medium.pixels)


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
    sizes = [(medium, *_count_pixels(medium)) for medium in media if medium.kind != "audio"]
    pixels = sum(shown for _, shown, _ in sizes)
    if pixels > MOST_PIXELS:
        raise RowFault(f"all that is seen has {pixels:,} pixels together, over {MOST_PIXELS:,}")
    heard = sum(measure_sound(*_read_all(each, HERE)[0]) for each in media if each.kind == "audio")
    if heard > MOST_HEARD:
        raise RowFault(f"all sounds have {heard:,} samples together, over {MOST_HEARD:,}")
    decoded = sum(
        whole
        for medium, _, whole in sizes
        if isinstance(medium.source, str) and is_address(medium.source)
    )
    if decoded > MOST_SENT:
        raise RowFault(f"all videos have {decoded:,} pixels in all frames, over {MOST_SENT:,}")
    return [look_at_medium(medium, HERE) for medium in media]


def _count_pixels(medium: Medium) -> tuple[int, int]:
    """Count the pixels that are shown of an image or a video, and those that are decoded."""
    found = _read_all(medium, HERE)
    if medium.kind == "image":
        pixels = measure(*found[0])
        return pixels, pixels
    how = _frames_of(medium)
    if isinstance(medium.source, str):
        clip = measure_video(*found[0])
        total, largest = clip.total, clip.width * clip.height
        count = len(how.pick(total, clip.fps))
    else:
        measure_stills(found)
        total = count = len(how.pick(len(found), how.fps))
        largest = max(measure(*still) for still in found)
    return count * min(largest, how.size(count)), total * largest


def _read_all(medium: Medium, place: Place) -> list[tuple[bytes, Path]]:
    """Read the file that a message holds, or the images that are its video."""
    sources = [medium.source] if isinstance(medium.source, str) else medium.source
    found, size = [], 0
    for source in sources:
        found.append(_read(source, medium.kind, place))
        size += len(found[-1][0])
        if size > MOST_BYTES:
            raise RowFault(f"the frames of a video have over {MOST_BYTES:,} bytes together")
    return found


def _hash(found: Sequence[tuple[bytes, Path]]) -> str:
    """Hash what one file holds, or what all do, in their order."""
    hashes = [hash_of(content) for content, _ in found]
    return hashes[0] if len(hashes) == 1 else hash_of("".join(hashes).encode())


def _read(source: str, kind: str, place: Place) -> tuple[bytes, Path]:
    if is_address(source):
        return read_address(source), Path(f"data: address ({kind})")
    if SCHEME.match(source):
        raise RowFault(f"{spell(source)} is an address, and nothing is downloaded; give a file")
    path = image_file(source, place)
    return read_image(path, "sound" if kind == "audio" else kind), path


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
