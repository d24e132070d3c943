"""Texts and images with the name of their class."""

from __future__ import annotations

from tunesmith.data.formats.format import Classed, Fields, Format, Names, describe, read_text
from tunesmith.data.rows import RowFault

EXACT = 2**53
"""Tables write whole numbers as such with a point; those from here on are others than they were."""


def _matches(fields: Fields, tags: Names) -> bool:
    return "text" in fields and "label" in fields


def _read(fields: Fields, tags: Names) -> Classed:
    text = read_text(fields, "text")
    if not text.strip():
        raise RowFault("the text is empty")
    return Classed(text, _read_class(fields))


def _matches_image(fields: Fields, tags: Names) -> bool:
    return "image_path" in fields and "label" in fields


def _read_image(fields: Fields, tags: Names) -> Classed:
    path = read_text(fields, "image_path")
    if not path.strip():
        raise RowFault("`image_path` is empty")
    if "://" in path:
        raise RowFault("`image_path` is an address, and nothing is downloaded; give a file")
    return Classed(path, _read_class(fields))


def _read_class(fields: Fields) -> str:
    """Read the name of a class; a whole number is spelled out.

    Raises:
        RowFault: if it is missing, empty, or no name.
    """
    if "label" not in fields:
        raise RowFault("`label` is missing")
    value = fields["label"]
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < EXACT:
        value = int(value)
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        raise RowFault(f"`label` is {describe(value)}, not the name of a class")
    label = read_text(fields, "label").strip()
    if not label:
        raise RowFault("`label` is empty")
    return label


LABELLED = Format(
    name="labelled",
    kind="labelled",
    columns={name: name for name in ("text", "label")},
    tags={},
    matches=_matches,
    read=_read,
)
LABELLED_IMAGES = Format(
    name="labelled_images",
    kind="image",
    columns={name: name for name in ("image_path", "label")},
    tags={},
    matches=_matches_image,
    read=_read_image,
)
