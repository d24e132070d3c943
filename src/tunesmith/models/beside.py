"""The model that every batch is shown too: a teacher, or a copy of the model before training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tunesmith.errors import ModelError
from tunesmith.models.beneath import base_sha256
from tunesmith.models.chat import Subject, find_beneath, find_subject, load_subject
from tunesmith.models.fingerprint import weights_sha256
from tunesmith.models.inspect import is_scorer
from tunesmith.models.load import load_config
from tunesmith.models.locate import locate
from tunesmith.models.reader import AnyReader, Reader, check_senses, find_reader
from tunesmith.models.tuning import is_full
from tunesmith.recipe.method import SFT, Distill
from tunesmith.recipe.options import Recipe

if TYPE_CHECKING:
    import torch

    from tunesmith.hardware import Precision


def compares(recipe: Recipe) -> bool:
    """Whether what the model says is compared with what another one says, token by token."""
    method = recipe.method
    return isinstance(method, Distill) or (isinstance(method, SFT) and method.loss == "asft")


def find_beside(recipe: Recipe) -> Subject | None:
    """Find the model that is held in memory beside the one that learns; None if there is none.

    Raises:
        ModelError: if there is no such model.
    """
    method = recipe.method
    if isinstance(method, Distill):
        return find_subject(method.teacher)
    if not compares(recipe) or not is_full(recipe.tuning):  # an adapter is switched off
        return None
    base, beneath = locate(recipe.model.name), find_beneath(recipe.model)
    return Subject("the model before training", base, beneath=beneath)


def check_beside(recipe: Recipe, reader: AnyReader) -> Subject | None:
    """Refuse a teacher that scores, or reads other tokens than the model does.

    Raises:
        ModelError: naming both folders.
    """
    subject = find_beside(recipe)
    if subject is None:
        return None
    load_config(subject.base)
    if is_scorer(subject.adapter or subject.base):
        raise ModelError(
            "the teacher is a reward model, which scores answers and gives none",
            hint="name a language model in method.teacher",
            where=str(subject.adapter or subject.base),
        )
    theirs = find_reader(subject.base)
    assert isinstance(reader, Reader)  # models of images learn to classify alone
    if theirs.tokenizer.get_vocab() != reader.tokenizer.get_vocab():
        raise ModelError(
            "the teacher has another vocabulary than the model, so its tokens are not the same",
            hint="name a larger model of the same family in method.teacher",
            where=f"{subject.base}, {reader.folder}",
        )
    check_senses(theirs, reader, "teacher")
    return subject


def beside_weights(recipe: Recipe) -> str | None:
    """Return the hash of a teacher's weights; None if there is no teacher."""
    subject = find_beside(recipe) if isinstance(recipe.method, Distill) else None
    if subject is None:
        return None
    parts = [base_sha256(subject.base, subject.beneath)]
    parts += [] if subject.adapter is None else [weights_sha256(subject.adapter)]
    return "+".join(parts)


def load_beside(
    recipe: Recipe, precision: Precision, device: torch.device
) -> torch.nn.Module | None:
    """Load the model that every batch is shown too, frozen.

    Raises:
        ModelError: if its logits cannot be computed some positions at a time.
    """
    from tunesmith.models.few_passes import use_few_passes
    from tunesmith.models.layout import find_layout

    subject = find_beside(recipe)
    if subject is None:
        return None
    model = load_subject(subject, precision, "cuda" if device.type == "cuda" else "cpu").model
    use_few_passes(model)
    if find_layout(model).head is None:
        raise ModelError(
            f"{subject.name} computes its logits itself, all at once: its head is of another kind",
            hint="name another teacher"
            if isinstance(recipe.method, Distill)
            else "write method.loss: dft",
            where=str(subject.base),
        )
    return model
