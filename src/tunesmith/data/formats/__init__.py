"""What the fields of a row mean: one file a format."""

from __future__ import annotations

from tunesmith.data.formats.alpaca import ALPACA
from tunesmith.data.formats.format import Format
from tunesmith.data.formats.messages import MESSAGES
from tunesmith.data.formats.sharegpt import SHAREGPT
from tunesmith.data.formats.text import TEXT

FORMATS: dict[str, Format] = {
    "alpaca": ALPACA,
    "sharegpt": SHAREGPT,
    "messages": MESSAGES,
    "text": TEXT,
}

__all__ = ["FORMATS", "Format"]
