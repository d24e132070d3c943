"""The small model and the sample data that ship with the package."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

Language = Literal["zh", "en"]

MODEL = Path(__file__).parent / "model"
"""Folder of the starter model: weights, configuration, tokenizer and chat template."""

DATA = Path(__file__).parent / "data"
"""Folder of the sample data: the Magic Conch, assistant of a burger chain."""


def sample(language: Language) -> Path:
    """Name the training rows of a language, in alpaca format."""
    return DATA / f"conch_{language}.json"


def heldout(language: Language) -> Path:
    """Name the held-out questions of a language.

    Rows hold `instruction`, `input`, `output` and `fact`: a text, or a list of texts of which an
    answer must contain one to be right.
    """
    return DATA / f"heldout_{language}.json"
