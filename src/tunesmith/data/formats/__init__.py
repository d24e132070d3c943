"""What the fields of a row mean: one file a format."""

from __future__ import annotations

from tunesmith.data.formats.alpaca import ALPACA, ALPACA_PAIRS
from tunesmith.data.formats.format import Format, Pair
from tunesmith.data.formats.messages import MESSAGES
from tunesmith.data.formats.sharegpt import SHAREGPT, SHAREGPT_PAIRS
from tunesmith.data.formats.text import TEXT

FORMATS: dict[str, Format] = {
    "alpaca_pairs": ALPACA_PAIRS,
    "sharegpt_pairs": SHAREGPT_PAIRS,
    "alpaca": ALPACA,
    "sharegpt": SHAREGPT,
    "messages": MESSAGES,
    "text": TEXT,
}
"""By name; where rows look like several, the first one is meant."""

__all__ = ["FORMATS", "Format", "Pair"]
