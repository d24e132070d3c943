"""What turns text into tokens and back: everything of a model but its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError
from tunesmith.models.classifier import is_image_model
from tunesmith.models.image_reader import ImageReader, load_image_reader
from tunesmith.models.locate import locate
from tunesmith.models.senses import Senses, load_senses, sees
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
        senses: how it reads what is not text; None for a model of text alone.
    """

    folder: Path
    tokenizer: PreTrainedTokenizerFast
    template: Template | None
    stop_ids: tuple[int, ...]
    senses: Senses | None = None

    def save(self, folder: Path) -> None:
        """Write the tokenizer, and the options of a processor, beside a model."""
        self.tokenizer.save_pretrained(str(folder))
        if self.senses is not None:
            self.senses.save(folder)


AnyReader = Reader | ImageReader


def find_any_reader(name: str | Path, template: str | None = None) -> AnyReader:
    """Load the reader of a model of text, or of images."""
    folder = locate(name)
    return load_image_reader(folder) if is_image_model(folder) else find_reader(folder, template)


def find_reader(name: str | Path, template: str | None = None) -> Reader:
    """Load the reader of a model by what a person would call it.

    Args:
        template: a chat template to use instead of the model's own.
    """
    folder = locate(name)
    tokenizer = load_tokenizer(folder)
    chosen = load_template(folder, tokenizer, template)
    senses = load_senses(folder, tokenizer) if sees(folder) else None
    return Reader(folder, tokenizer, chosen, stop_ids(folder, tokenizer, chosen), senses)


def check_senses(theirs: Reader, reader: Reader, what: str) -> None:
    """Refuse a model beside that counts as other tokens what rows show; it may see nothing at all.

    Raises:
        ModelError: naming both folders.
    """
    if theirs.senses is None or reader.senses is None:
        return
    if theirs.senses.sha256 != reader.senses.sha256:
        raise ModelError(
            f"the {what} makes other tokens of images or sounds than the model does",
            hint="name one whose preprocessor_config.json is the model's",
            where=f"{theirs.folder}, {reader.folder}",
        )
