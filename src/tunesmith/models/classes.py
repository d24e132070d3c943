"""Load a classifier to ask it: a run, a checkpoint of one, or an exported folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError
from tunesmith.hardware import DeviceOption, choose_device
from tunesmith.models.adapter import load_adapter
from tunesmith.models.chat import Subject
from tunesmith.models.classifier import load_classifier_model
from tunesmith.models.inspect import labels_of
from tunesmith.models.reader import AnyReader, Reader, find_any_reader
from tunesmith.models.roles import know_padding

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Classifier:
    """A model in evaluation mode that names classes, in fp32.

    Attributes:
        model: a Hugging Face model with a head of one score a label, or a PEFT model over one.
        reader: how it reads text, or images.
        labels: in the order of the scores.
    """

    name: str
    model: torch.nn.Module
    reader: AnyReader
    labels: tuple[str, ...]


def load_classifier(subject: Subject, device: DeviceOption = "auto") -> Classifier:
    """Load a classifier with the head it was trained with.

    Raises:
        ModelError: if it is none, or its parts do not fit.
    """
    import torch

    weights = subject.adapter or subject.base
    labels = labels_of(weights)
    if not labels:
        raise ModelError(
            "this is no classifier: it has no head that names classes",
            hint="train one with method.name: classify; language models are asked with "
            "`tunesmith chat`",
            where=str(weights),
        )
    reader, on = find_any_reader(subject.base), choose_device(device)
    base = load_classifier_model(subject.base, labels, dtype=torch.float32, device=on)
    if isinstance(reader, Reader):
        know_padding(base, reader)
    model: torch.nn.Module = base
    if subject.adapter is not None:
        model = load_adapter(base, subject.adapter, subject.base)
    model.eval().requires_grad_(False).float()
    return Classifier(subject.name, model, reader, labels)
