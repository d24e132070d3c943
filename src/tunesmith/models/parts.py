"""Which part of a model that sees or hears a weight belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, get_args

from tunesmith.errors import RecipeError
from tunesmith.models.inner import inner_model, reads_images
from tunesmith.models.score import find_score
from tunesmith.recipe.tuning import Part, Parted

if TYPE_CHECKING:
    import torch

PROJECTORS = ("projector", "projection", "connector", "merger", "aligner", "embed_vision")
"""What names of modules hold that turn what a tower sees into what a language model reads."""
EVERY: tuple[Part, ...] = get_args(Part)


def language_prefix(model: torch.nn.Module) -> str:
    """Name the language model inside of one that sees or hears; nothing if it is all there is."""
    inner = inner_model(model)
    if reads_images(model):
        return ""
    decoder = inner.get_decoder()
    names = [name for name, module in inner.named_modules() if module is decoder]
    nested = [name for name in names if name and name != inner.base_model_prefix]
    return nested[0] if nested else ""


def part_of(name: str, language: str, head: str) -> Part:
    """Tell the part of a weight or a module by its name.

    Args:
        language: what the language model is called.
        head: what its head is called, which writes or scores.
    """
    if any(name == own or name.startswith(f"{own}.") for own in (language, head) if own):
        return "language"
    projects = any(word in part for part in name.split(".") for word in PROJECTORS)
    return "projector" if projects else "tower"


def keep_parts(model: torch.nn.Module, names: Iterable[str], tuning: Parted) -> list[str]:
    """Keep the names of weights or modules in the parts that a tuning opens.

    Raises:
        RecipeError: if it names parts of a model that has none.
    """
    language = language_prefix(model)
    if not language:
        if tuning.parts != ("language",):
            what = "images" if reads_images(model) else "text"
            raise RecipeError(
                f"tuning.parts has no effect: the model reads {what} alone, and has no parts",
                hint="remove it",
                where="tuning.parts",
            )
        return list(names)
    head = _head_name(model)
    return [name for name in names if part_of(name, language, head) in tuning.parts]


def language_names(model: torch.nn.Module, names: Iterable[str]) -> list[str]:
    """Keep the names of the weights of a language model; all where it is all there is."""
    language, head = language_prefix(model), _head_name(model)
    return [n for n in names if not language or part_of(n, language, head) == "language"]


def _head_name(model: torch.nn.Module) -> str:
    inner, score = inner_model(model), find_score(model)
    head = inner.get_output_embeddings() if score is None else score
    return next((name for name, module in inner.named_modules() if module is head), "")


def freeze_other_parts(model: torch.nn.Module, tuning: Parted) -> None:
    """Freeze the parts that a tuning does not open."""
    names, score = [name for name, _ in model.named_parameters()], find_score(model)
    kept = set(keep_parts(model, names, tuning))
    random = set() if score is None else {id(weight) for weight in score.parameters()}
    for name, weight in model.named_parameters():
        if name not in kept and id(weight) not in random:
            weight.requires_grad_(False)
