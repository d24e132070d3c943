"""What the fields of a row mean: one file a format."""

from __future__ import annotations

from tunesmith.data.formats.alpaca import ALPACA, ALPACA_JUDGED, ALPACA_PAIRS, ALPACA_PROMPTS
from tunesmith.data.formats.format import Classed, Format, Judgement, Pair, Question
from tunesmith.data.formats.labelled import LABELLED, LABELLED_IMAGES
from tunesmith.data.formats.message_pairs import MESSAGES_PAIRS, PROMPT_PAIRS
from tunesmith.data.formats.messages import (
    COMPLETION,
    COMPLETION_JUDGED,
    COMPLETION_PROMPTS,
    MESSAGES,
    MESSAGES_JUDGED,
    MESSAGES_PROMPTS,
    PROMPTS,
)
from tunesmith.data.formats.sharegpt import (
    SHAREGPT,
    SHAREGPT_JUDGED,
    SHAREGPT_PAIRS,
    SHAREGPT_PROMPTS,
)
from tunesmith.data.formats.text import TEXT

FORMATS: dict[str, Format] = {
    "alpaca_pairs": ALPACA_PAIRS,
    "sharegpt_pairs": SHAREGPT_PAIRS,
    "messages_pairs": MESSAGES_PAIRS,
    "prompt_pairs": PROMPT_PAIRS,
    "alpaca_judged": ALPACA_JUDGED,
    "sharegpt_judged": SHAREGPT_JUDGED,
    "messages_judged": MESSAGES_JUDGED,
    "completion_judged": COMPLETION_JUDGED,
    "alpaca": ALPACA,
    "sharegpt": SHAREGPT,
    "messages": MESSAGES,
    "completion": COMPLETION,
    "labelled": LABELLED,
    "labelled_images": LABELLED_IMAGES,
    "text": TEXT,
    "alpaca_prompts": ALPACA_PROMPTS,
    "sharegpt_prompts": SHAREGPT_PROMPTS,
    "messages_prompts": MESSAGES_PROMPTS,
    "completion_prompts": COMPLETION_PROMPTS,
    "prompts": PROMPTS,
}
"""By name; where rows look like several, the first one is meant."""

__all__ = ["FORMATS", "Classed", "Format", "Judgement", "Pair", "Question"]
