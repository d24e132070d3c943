"""Classification: name the class of a text or an image by the highest of several scores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tunesmith.data.rows import Learn
from tunesmith.methods.batches import join
from tunesmith.methods.learned import model_arguments
from tunesmith.methods.method import Batch, Joining, LossSum, Method, Row
from tunesmith.methods.reward import last_tokens
from tunesmith.models.image_reader import ImageReader
from tunesmith.models.reader import AnyReader
from tunesmith.recipe.method import Classify

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ClassifyMethod(Method):
    """Cross-entropy over the labels of a text, read after its last token, or of an image."""

    options: Classify

    @property
    def learn(self) -> Learn:
        """Which tokens of a row are learned."""
        return Learn(kind="labelled")

    def collate(self, rows: Sequence[Row], how: Joining) -> Batch:
        """Join rows into one batch; images are decoded here.

        Returns:
            what `join` does, with num_answers, or pixels [rows, channels, height, width]; and
            classes, the numbers of the labels, and class_weights, how much each counts where
            that is not 1, [rows] both.
        """
        import torch

        named: Batch = {"classes": torch.tensor([int(row["label"]) for row in rows])}
        if "class_weight" in rows[0]:
            named["class_weights"] = torch.tensor([float(row["class_weight"]) for row in rows])
        if "pixels" in rows[0]:
            return {"pixels": torch.stack([row["pixels"]() for row in rows]), **named}
        return {**join(rows, how), "num_answers": len(rows), **named}

    def count(self, batch: Batch) -> float:
        """Count the rows of a batch, each by its weight."""
        if "class_weights" in batch:
            return float(batch["class_weights"].double().sum())
        return len(batch["classes"])

    def loss(self, model: torch.nn.Module, batch: Batch) -> LossSum:
        """Sum the loss over the rows of a batch."""
        import torch
        from torch.nn.functional import cross_entropy

        scores, classes = class_scores(model, batch), batch["classes"]
        losses = cross_entropy(scores, classes, reduction="none")
        weights = batch.get("class_weights")
        named = scores.detach().argmax(dim=1)
        return LossSum(
            (losses if weights is None else losses * weights).sum(),
            self.count(batch),
            {"accuracy": (named == classes).float().sum()},
            {"accuracy": torch.tensor(float(len(classes)))},
            classes=count_classes(named, classes, scores.shape[1]),
        )


def class_scores(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """Score each label for each row, [rows, labels], in fp32."""
    if "pixels" in batch:
        scores: torch.Tensor = model(pixel_values=batch["pixels"]).logits
        return scores.float()
    from tunesmith.models.layout import find_layout
    from tunesmith.models.score import scores_at

    find_layout(model)  # it lets the model attend to rows that lie end to end
    return scores_at(model, model_arguments(model, batch), last_tokens(batch))


def count_classes(named: torch.Tensor, classes: torch.Tensor, labels: int) -> torch.Tensor:
    """Count of each class the rows named rightly, those named so, and those of it, [3, labels]."""
    import torch

    parts = (classes[named == classes], named, classes)
    return torch.stack([part.bincount(minlength=labels) for part in parts])


def learn_of(method: Method, reader: AnyReader) -> Learn:
    """Say what a method learns with a model: of one that reads images alone, images."""
    if not isinstance(reader, ImageReader):
        return replace(method.learn, senses=reader.senses)
    return replace(method.learn, kind="image", image_tokens=reader.num_tokens)
