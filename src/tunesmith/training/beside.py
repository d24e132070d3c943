"""What a training holds beside the model that learns, counted from shapes: models it asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tunesmith.hardware import Precision
from tunesmith.methods.rewards.model import find_judge
from tunesmith.models.adapter import WEIGHTS
from tunesmith.models.autocast import number_type
from tunesmith.models.beside import find_beside
from tunesmith.models.chat import Subject
from tunesmith.models.inspect import is_scorer
from tunesmith.models.load import language_class, load_config, scoring_class
from tunesmith.models.quantize.packed import find_packed
from tunesmith.models.quantize.storage import find_frozen, measure_storage
from tunesmith.models.roles import base_dtype, find_reference
from tunesmith.recipe.method import Online
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rewards import ScoredBy
from tunesmith.recipe.tuning import LoRA

if TYPE_CHECKING:
    from transformers import PreTrainedModel

COPIES = 3
"""Numbers as many as the largest layer has, that LoftQ computes with at once."""


def held_beside(recipe: Recipe, precision: Precision) -> int:
    """Count the bytes of the models that are held all along: a teacher or copy, and judges."""
    method, subject = recipe.method, find_beside(recipe)
    rewards = method.rewards if isinstance(method, Online) else ()
    judges = [find_judge(one) for one in rewards if isinstance(one, ScoredBy)]
    stored = 0 if subject is None else _stored(subject, precision)
    return stored + sum(_stored(judge, "fp32") for judge in judges)


def hidden_beside(recipe: Recipe) -> int:
    """Count the numbers that the model beside leaves of each token, 0 if there is none."""
    subject = find_beside(recipe)
    if subject is None:
        return 0
    config = load_config(subject.base).get_text_config().to_dict()
    return int(config.get("hidden_size") or config.get("n_embd") or 1)


def held_at_first(recipe: Recipe, model: Any, precision: Precision, device: str) -> int:
    """Count the bytes of what is held before the first update only: a reference, whole weights.

    Args:
        model: the one that learns, without numbers.
    """
    folder = find_reference(recipe)
    if folder is not None:
        dtype = base_dtype(recipe, precision)
        return _weight_bytes(_build(Subject("reference", folder), dtype))
    tuning = recipe.tuning
    if not isinstance(tuning, LoRA) or tuning.init != "loftq":
        return 0
    largest = max(weight.numel() for weight in find_frozen(model).values())
    whole = 0 if device == "cuda" else sum(weight.numel() for weight in model.parameters())
    return 4 * (whole + COPIES * largest)


def _stored(subject: Subject, precision: Precision) -> int:
    """Count the bytes that a model takes, in few bits if it is kept so."""
    model = _build(subject, number_type(precision))
    storage = measure_storage(model, subject.quantize, find_packed(subject.base))
    stored = _weight_bytes(model)
    if storage is not None:
        stored += storage.quantized - storage.plain + storage.working(half=precision != "fp32")
    if subject.adapter is not None:
        stored += (subject.adapter / WEIGHTS).stat().st_size
    return stored


def _build(subject: Subject, dtype: torch.dtype) -> PreTrainedModel:
    """Build a model from shapes alone: one that answers, or one that scores."""
    config = load_config(subject.base)
    scores = is_scorer(subject.adapter or subject.base)
    kind = scoring_class(config) if scores else language_class(config)
    with torch.device("meta"):
        model: PreTrainedModel = kind.from_config(config, dtype=dtype)
    return model


def _weight_bytes(model: torch.nn.Module) -> int:
    return sum(weight.numel() * weight.element_size() for weight in model.parameters())
