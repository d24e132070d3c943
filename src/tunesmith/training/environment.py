"""What a run's result depends on besides its recipe, written down so that a resume can compare."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from tunesmith.data.prepare import Splits
from tunesmith.errors import RecipeError, RunError
from tunesmith.hardware import describe_machine
from tunesmith.methods.rewards import describe_rewards
from tunesmith.models.beneath import base_sha256
from tunesmith.models.beside import beside_weights
from tunesmith.models.chat import find_beneath
from tunesmith.models.fingerprint import tokenizer_sha256, weights_sha256
from tunesmith.models.quantize import packages_for
from tunesmith.models.reader import AnyReader
from tunesmith.models.roles import find_reference
from tunesmith.models.start import find_start
from tunesmith.recipe.load import build_recipe
from tunesmith.recipe.method import Online
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run

PACKAGES = (
    "tunesmith",
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "tokenizers",
    "numpy",
)
FREE_TO_CHANGE = ("machine",)


def describe_environment(recipe: Recipe, reader: AnyReader, splits: Splits) -> dict[str, Any]:
    """Describe recipe, data, base, threads and versions of a run that is about to start."""
    import torch

    from tunesmith.hardware import choose_device, choose_precision
    from tunesmith.training.optimizers import packages_of

    device = choose_device(recipe.compute.device)
    reference = find_reference(recipe)
    other: dict[str, Any] = (
        {} if reference is None else {"reference_weights": weights_sha256(reference)}
    )
    teacher = beside_weights(recipe)
    if teacher is not None:
        other["teacher_weights"] = teacher
    base, beneath = reader.folder, find_beneath(recipe.model)
    start = find_start(recipe)
    if start is not None:
        other["start_weights"] = weights_sha256(start)
    if isinstance(recipe.method, Online):
        other["rewards"] = describe_rewards(recipe.method.rewards)
    quantize = recipe.model.quantize
    packages = (*PACKAGES, *packages_for(quantize))
    return {
        "recipe": recipe.model_dump(mode="json"),
        "data": splits.fingerprint,
        "base_weights": "random" if recipe.model.from_scratch else base_sha256(base, beneath),
        **other,
        "tokenizer": tokenizer_sha256(reader.folder),
        "threads": torch.get_num_threads(),
        "device": device.type,
        "precision": choose_precision(recipe.compute.precision, device),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in sorted({*packages, *packages_of(recipe)})},
        "machine": asdict(describe_machine(device)),
    }


def changes(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """List what differs, as `name: before -> now`, leaving out what may differ."""
    flat_before, flat_now = _flatten(before), _flatten(now)
    differing = []
    for name in sorted(flat_before.keys() | flat_now.keys()):
        if name.split(".")[0] in FREE_TO_CHANGE:
            continue
        old, new = flat_before.get(name, "nothing"), flat_now.get(name, "nothing")
        if old != new:
            differing.append(f"{name}: {_short(old)} -> {_short(new)}")
    return differing


def check_unchanged(run: Run, now: dict[str, Any], *, accept: bool) -> bool:
    """Refuse to go on over something changed, unless it is accepted.

    Returns:
        Whether the run is still the same to the bit.

    Raises:
        RunError: with the differences.
    """
    before = run.environment()
    differing = changes(_with_defaults(before), now) if before else []
    if differing and not accept:
        raise RunError(
            "the run cannot go on to the same weights, these changed: " + "; ".join(differing),
            hint="put them back, or add --accept-changes to go on all the same",
            where=str(run.path),
        )
    return not differing


def _with_defaults(before: dict[str, Any]) -> dict[str, Any]:
    """Write out the options that did not exist yet when a run began."""
    try:
        recipe = build_recipe(before["recipe"])
    except (KeyError, RecipeError):
        return before
    return {**before, "recipe": recipe.model_dump(mode="json")}


def _flatten(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        flat: dict[str, Any] = {}
        for key, inner in value.items():
            flat |= _flatten(inner, f"{name}.{key}" if name else str(key))
        return flat
    if isinstance(value, list | tuple) and any(isinstance(inner, dict) for inner in value):
        return _flatten({str(place): inner for place, inner in enumerate(value)}, name)
    return {name: list(value) if isinstance(value, tuple) else value}


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:12]}..."
