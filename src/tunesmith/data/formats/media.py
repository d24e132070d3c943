"""Images, videos and sounds of a row: in columns, with a word in the text for each, or in parts."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from tunesmith.data.formats.format import Fields, check_text
from tunesmith.data.rows import Medium, Message, RowFault, Source
from tunesmith.templates import PLACES

COLUMNS = {"images": "image", "videos": "video", "audios": "audio"}
NAMES = {name: name for name in COLUMNS}
PARTS = {
    "image": "image",
    "image_url": "image",
    "video": "video",
    "video_url": "video",
    "audio": "audio",
    "audio_url": "audio",
    "input_audio": "audio",
}
"""Types of parts of messages that show or play something."""
SOURCES = ("path", "url", "data")
"""Where an object keeps its file, its address, or what the file holds."""
NOTHING: tuple[object, ...] = (None, "", [], "[]")


def place_media(messages: Sequence[Message], fields: Fields) -> tuple[Message, ...]:
    """Give messages what the row's columns hold, in the places that they keep for it.

    Raises:
        RowFault: if there are other places than there are files, or an answer holds one.
    """
    given = {kind: _read_column(fields, name) for name, kind in COLUMNS.items() if name in fields}
    kept = [_keep_places(message, given) for message in messages]
    waiting = [medium.kind for message in kept for medium in message.media if not medium.source]
    for kind in PLACES:
        files, places = len(given.get(kind, ())), waiting.count(kind)
        if files != places:
            raise RowFault(f"it has {files} in `{kind}s`, and {places} places for them (<{kind}>)")
    if not any(message.media for message in kept):
        return tuple(messages)
    sources = {kind: iter(found) for kind, found in given.items()}
    return tuple(
        replace(
            message,
            media=tuple(
                medium if medium.source else replace(medium, source=next(sources[medium.kind]))
                for medium in message.media
            ),
        )
        for message in kept
    )


def _keep_places(message: Message, given: Mapping[str, Sequence[Source]]) -> Message:
    """Read the words of a text that stand for a file, of the kinds that the row has columns of."""
    if message.media:
        found = message
    elif not given:
        return message
    else:
        word = re.compile(f"<({'|'.join(given)})>")
        media = tuple(Medium(kind, "") for kind in word.findall(message.content))
        content = word.sub(lambda at: PLACES[at[1]], message.content)
        found = replace(message, content=content, media=media)
    if found.media and message.role == "assistant":
        raise RowFault(f"an answer holds {found.media[0].kind}, and models answer by text")
    return found


def _read_column(fields: Fields, name: str) -> list[Source]:
    """Read the files of a column: one, or a list of them; a video may be a list of images."""
    value = fields[name]
    if value in NOTHING:
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            raise RowFault(f"`{name}` begins as a list, and is not JSON") from None
    values = value if isinstance(value, list) else [value]
    return [_read_any(each, COLUMNS[name], f"`{name}`") for each in values]


def _read_any(value: object, kind: str, label: str) -> Source:
    """Return where something lies: a video may be a list of images."""
    if kind != "video" or not isinstance(value, list):
        return _read_source(value, label)
    if not value:
        raise RowFault(f"a video of {label} is a list of no frames")
    return tuple(_read_source(each, f"a frame of {label}") for each in value)


def _read_source(value: object, label: str) -> str:
    """Return where a file lies, or what it holds as a data: address."""
    if isinstance(value, bytes):
        return "data:;base64," + base64.b64encode(value).decode()
    if isinstance(value, Mapping):
        inside = value.get("bytes")
        if isinstance(inside, bytes):
            return _read_source(inside, label)
        value = next((value[key] for key in SOURCES if value.get(key)), None)
    source = check_text(value, label).strip()
    if not source:
        raise RowFault(f"{label} is empty")
    return source


def is_shown(kind: object) -> bool:
    """Whether a type of part shows or plays something."""
    return isinstance(kind, str) and kind in PARTS


def read_shown(part: Mapping[str, object], label: str) -> Medium:
    """Read a part of a message that shows or plays something.

    Raises:
        RowFault: if it does not say where it lies.
    """
    kind = PARTS[str(part["type"])]
    keys = (str(part["type"]), kind, *SOURCES)
    others = [key for key in part if key not in ("type", *keys) and part[key] is not None]
    if kind == "video" and others:
        raise RowFault(
            f"a video of {label} says `{others[0]}`; which frames are taken is said by "
            "data.video_fps, data.video_frames and data.video_pixels"
        )
    value = next((part[key] for key in keys if part.get(key)), None)
    if value is None:  # the row's column holds it
        return Medium(kind, "")
    if part["type"] == "input_audio" and isinstance(value, Mapping):
        return Medium(kind, "data:;base64," + check_text(value.get("data"), label))
    return Medium(kind, _read_any(value, kind, f"a part of {label}"))
