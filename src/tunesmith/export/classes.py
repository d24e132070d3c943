"""Compare classifiers on a run's own rows: what was tested is what is asked."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.media.images import Picture
from tunesmith.data.tokens import encode_labelled
from tunesmith.errors import DataError, ExportError
from tunesmith.export.parity import NEAR_TIE, Distance
from tunesmith.inference.classify import image_scores, token_scores
from tunesmith.models.classes import Classifier
from tunesmith.models.image_reader import ImageReader

if TYPE_CHECKING:
    import torch


def score_probes(model: Classifier, probes: Sequence[dict[str, Any]]) -> torch.Tensor:
    """Score each label for each row that the run kept, [probes, labels].

    Raises:
        ExportError: if the tokenizer reads a text otherwise than in training, or an image is not
            what it was.
    """
    import torch

    return torch.stack([_score(model, probe) for probe in probes])


def _score(model: Classifier, probe: dict[str, Any]) -> torch.Tensor:
    if isinstance(model.reader, ImageReader):
        picture = Picture(Path(probe["image"]), probe["sha256"])
        try:
            picture.open()
        except DataError as problem:
            raise ExportError(
                f"the export is compared on images of the run: {problem.message}",
                hint="put the images back where they lay",
                where=problem.where,
            ) from None
        return image_scores(model, picture.path)
    ids = probe["ids"]
    (row,) = encode_labelled(model.reader.tokenizer, [probe["text"]], len(ids))
    if row.ids != ids:
        raise ExportError(
            f"the tokenizer gives other tokens than in training for {probe['text'][:60]!r}",
            hint="the files of the base model changed since; put them back",
            where=str(model.reader.folder),
        )
    return token_scores(model, ids)


def check_same_classes(scores: torch.Tensor, wanted: torch.Tensor, name: str) -> int:
    """Refuse a model that names other classes, but for near ties; return how many these are.

    Raises:
        ExportError: if one differs.
    """
    others = scores.argmax(dim=1) != wanted.argmax(dim=1)
    best = wanted[others].topk(2, dim=1).values
    if bool((best[:, 0] - best[:, 1] >= NEAR_TIE).any()):
        raise ExportError(
            "the merged model names other classes than the tuned one",
            hint="this is a fault of the export; nothing was published; please report it",
            where=name,
        )
    return int(others.sum())


def distance_of(scores: torch.Tensor, wanted: torch.Tensor) -> Distance:
    """Measure how far scores are from those of the tuned model."""
    from torch.nn.functional import kl_div, log_softmax

    p, q = log_softmax(wanted, dim=1), log_softmax(scores, dim=1)
    kl = float(kl_div(q, p, log_target=True, reduction="batchmean"))
    same = float((scores.argmax(dim=1) == wanted.argmax(dim=1)).float().mean())
    return Distance(len(wanted), max(kl, 0.0), same, float((scores - wanted).abs().max()))
