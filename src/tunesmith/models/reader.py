"""What turns text into tokens and back: everything of a model but its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.models.locate import locate
from tunesmith.models.tokenizer import load_template, load_tokenizer, stop_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from tunesmith.templates import Template


@dataclass(frozen=True)
class Reader:
    """A model's tokenizer with all that goes with it.

    Attributes:
        folder: the model's folder.
        template: None for models that only continue text.
        stop_ids: tokens at which an answer is over.
    """

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    template: Template | None
    stop_ids: tuple[int, ...]


def find_reader(name: str | Path, template: str | None = None) -> Reader:
    """Load the reader of a model by what a person would call it.

    Args:
        template: a chat template to use instead of the model's own.
    """
    folder = locate(name)
    tokenizer = load_tokenizer(folder)
    chosen = load_template(folder, tokenizer, template)
    return Reader(folder, tokenizer, chosen, stop_ids(folder, tokenizer, chosen))
