"""Name the classes of texts or images with a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.data.media.images import decode, read_image
from tunesmith.data.rows import RowFault
from tunesmith.data.tokens import encode_labelled
from tunesmith.errors import DataError
from tunesmith.models.classes import Classifier
from tunesmith.models.image_reader import ImageReader
from tunesmith.models.inner import inner_model
from tunesmith.models.rope import longest_text
from tunesmith.models.score import scores_at
from tunesmith.paths import expand
from tunesmith.recipe.section import MOST

if TYPE_CHECKING:
    import torch


def classify(model: Classifier, given: Sequence[str]) -> list[dict[str, float]]:
    """Tell how likely each label is for each text, or path of an image; the likeliest first.

    Raises:
        DataError: if a text is empty or longer than the model takes, or an image cannot be read.
    """
    import torch

    found = []
    for one in given:
        shares = torch.softmax(scores_of(model, one), dim=0).tolist()
        pairs = zip(model.labels, shares, strict=True)
        found.append(dict(sorted(pairs, key=lambda pair: -pair[1])))
    return found


def scores_of(model: Classifier, given: str) -> torch.Tensor:
    """Score each label for a text, or the path of an image, [labels], in fp32."""
    if isinstance(model.reader, ImageReader):
        return image_scores(model, expand(given))
    if not given.strip():
        raise DataError("the text is empty", hint="give some words", where="command line")
    (row,) = encode_labelled(model.reader.tokenizer, [given], MOST)
    return token_scores(model, row.ids)


def token_scores(model: Classifier, ids: Sequence[int]) -> torch.Tensor:
    """Score each label for a text that is tokens already, [labels].

    Raises:
        DataError: if it is longer than the model takes.
    """
    import torch

    most = longest_text(inner_model(model.model).config)
    if most and len(ids) > most:
        raise DataError(
            f"the text has {len(ids):,} tokens, the model takes {most:,}",
            hint="give a shorter one",
            where=model.name,
        )
    device = next(model.model.parameters()).device
    tokens = {"input_ids": torch.tensor([list(ids)], device=device)}
    with torch.no_grad():
        return scores_at(model.model, tokens, torch.tensor([len(ids) - 1], device=device))[0].cpu()


def image_scores(model: Classifier, path: Path) -> torch.Tensor:
    """Score each label for an image, [labels].

    Raises:
        DataError: if it cannot be read.
    """
    import torch

    assert isinstance(model.reader, ImageReader)
    try:
        image = decode(read_image(path), path)
    except RowFault as fault:
        raise DataError(
            str(fault), hint="this classifier takes paths of images", where=str(path)
        ) from None
    device = next(model.model.parameters()).device
    pixels = model.reader.pixels(image)[None].to(device)
    with torch.no_grad():
        scores: torch.Tensor = model.model(pixel_values=pixels).logits
    return scores[0].float().cpu()
