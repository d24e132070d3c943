"""All that decides the tokens of a row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.recipe.data import Data
from tunesmith.templates import Template

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class Tokenizing:
    """All that decides the tokens of a row, besides the row.

    Attributes:
        tokenizer: None for images.
        seed: draws the rows where a set's `max_rows` asks for fewer than there are.
    """

    options: Data
    learn: Learn
    tokenizer: PreTrainedTokenizerFast | None
    template: Template | None
    seed: int

    @property
    def words(self) -> PreTrainedTokenizerFast:
        """The tokenizer, of which all rows but images have need."""
        assert self.tokenizer is not None
        return self.tokenizer
