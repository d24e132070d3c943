"""Load a model that reads texts and makes points of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError
from tunesmith.hardware import DeviceOption, PrecisionOption, choose_device, choose_precision
from tunesmith.models.autocast import number_type
from tunesmith.models.load import (
    check_vocabulary,
    count_embeddings,
    move,
    read_architecture,
    read_weights,
    refuse_partial,
)
from tunesmith.models.pooling import Pooling, read_pooling
from tunesmith.models.quantize.packed import refuse_packed
from tunesmith.models.rope import longest_text
from tunesmith.models.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

HEADS = ("pooler.", "lm_head.", "cls.")
"""How weights are called that states do not need, stored or not."""


@dataclass(frozen=True)
class Encoder:
    """A model in evaluation mode that makes points of texts.

    Attributes:
        longest: tokens of a text, those that the tokenizer adds included.
    """

    name: str
    folder: Path
    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast
    pooling: Pooling
    longest: int


def load_encoder(
    name: str, folder: Path, precision: PrecisionOption = "auto", device: DeviceOption = "auto"
) -> Encoder:
    """Load an embedding model that sentence-transformers laid out.

    Raises:
        ModelError: if a part is missing, or works in a way that is not known here.
    """
    from transformers import AutoModel

    pooling, tokenizer = read_pooling(folder), load_tokenizer(folder)
    config, on = read_architecture(folder), choose_device(device)
    if config.is_encoder_decoder:
        raise ModelError(
            "the embedding model reads and writes, and only models that do one are served",
            hint="take another one",
            where=str(folder / "config.json"),
        )
    refuse_packed(folder, "embedding models are served in whole weights")
    dtype = number_type(choose_precision(precision, on))
    model, loaded = read_weights(AutoModel, folder, {"dtype": dtype})
    without = {
        kind: [key for key in loaded[kind] if not str(key).startswith(HEADS)]
        for kind in ("missing_keys", "unexpected_keys")
    }
    refuse_partial(folder, {**loaded, **without})
    check_vocabulary(folder, len(tokenizer), count_embeddings(model))
    model = move(model, on)
    model.eval()
    model.requires_grad_(False)
    places = longest_text(config) or 1 << 30
    if config.model_type in ("roberta", "xlm-roberta", "mpnet", "camembert"):
        places -= (config.pad_token_id or 0) + 1  # their positions begin behind the padding
    return Encoder(name, folder, model, tokenizer, pooling, min(places, pooling.longest or places))
