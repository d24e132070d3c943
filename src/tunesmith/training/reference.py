"""What a reference says of the answers: computed once, then read from disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data.token_rows import TokenRows
from tunesmith.errors import RunError
from tunesmith.logs import logger
from tunesmith.methods.batches import joining_of
from tunesmith.methods.method import Joining
from tunesmith.methods.ranks import Ranks, Share
from tunesmith.methods.reference import Logps, reference_logps
from tunesmith.models.autocast import mixing
from tunesmith.models.quantize import packages_for
from tunesmith.models.roles import Roles, base_dtype, find_reference, load_reference
from tunesmith.runs.write import write_bytes
from tunesmith.settings import read_settings
from tunesmith.training.prepare import Prepared

log = logger(__name__)
FORM = 2
"""Number of the way references are computed and kept; raise it when that changes."""
DIGEST = 32


def with_reference(
    prepared: Prepared,
    roles: Roles,
    how: Joining,
    *,
    sha256: str,
    give_up: Callable[[], bool],
) -> Prepared:
    """Let the rows carry what a reference says of them, if the method needs it.

    It is kept in the cache under a hash of all it depends on: the model, the rows as tokens, and
    how it is computed.

    Args:
        roles: the models before training; an adapter is switched off.
        sha256: hash of the reference's weights.
        give_up: asked before each batch whether to leave the rows as they are.
    """
    if not prepared.method.needs_reference:
        return prepared
    splits = prepared.splits
    found: dict[str, Any] = {}
    for name, rows in (("train", splits.train), ("validation", splits.validation)):
        if rows is None:
            continue
        parts = [FORM, name, sha256, splits.fingerprint, *_way(prepared, roles, how)]
        key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
        file = read_settings().cache / "reference" / key
        kept = _read_first(file, len(rows), prepared.ranks)
        if kept is None:
            kept = _compute(prepared, roles, rows, how, give_up)
            if kept is None:
                return prepared
            if prepared.ranks.is_first:
                _write(file, kept)
        found[name] = rows.beside(reference=kept)
    return replace(prepared, splits=replace(splits, **found))


def _way(prepared: Prepared, roles: Roles, how: Joining) -> list[Any]:
    """List what the numbers depend on besides model and rows, to their last bit."""
    import torch

    recipe = prepared.recipe
    quantize = recipe.model.quantize
    packages = ["tunesmith", "torch", "transformers", "peft"]
    packages += packages_for(quantize)
    versions = [version(name) for name in packages]
    few_bits = None if quantize is None else quantize.model_dump()
    stored = [str(base_dtype(recipe, roles.precision)), few_bits]
    cuda = roles.device.type == "cuda"
    machine = torch.cuda.get_device_name(roles.device) if cuda else torch.get_num_threads()
    computed = [recipe.compute.tokens_per_batch, roles.precision, stored, how.flat, how.coarse]
    return [*computed, roles.device.type, machine, versions]


def _compute(
    prepared: Prepared,
    roles: Roles,
    rows: TokenRows,
    how: Joining,
    give_up: Callable[[], bool],
) -> Logps | None:
    """Ask the reference: the policy as it is, or another model, loaded for this only."""
    tokens = prepared.recipe.compute.tokens_per_batch
    assert tokens is not None  # settled before the run began
    folder = find_reference(prepared.recipe)
    model = roles.policy
    if folder is not None:
        model = load_reference(folder, prepared.recipe, roles)
        how = replace(joining_of(model), coarse=how.coarse)
    with mixing(roles.precision, roles.device.type):
        return reference_logps(
            model,
            prepared.method,
            rows,
            how=how,
            tokens=tokens,
            share=Share(prepared.ranks, give_up),
        )


def _read_first(file: Path, rows: int, ranks: Ranks) -> Logps | None:
    """Let the first process read what was kept, for all."""
    import torch

    kept = _read(file, rows) if ranks.is_first else None
    if not ranks.any(kept is not None):
        return None
    numbers = np.zeros((rows, 2)) if kept is None else kept.copy()
    ranks.first(torch.from_numpy(numbers))
    return numbers


def _read(file: Path, rows: int) -> Logps | None:
    """Read what was kept; None if there is nothing, or it is damaged."""
    try:
        content = file.read_bytes()
    except OSError:
        return None
    digest, numbers = content[:DIGEST], content[DIGEST:]
    if hashlib.sha256(numbers).digest() != digest or len(numbers) != 16 * rows:
        log.warning("%s is damaged: the reference is computed again", file)
        return None
    return np.frombuffer(numbers, np.float64).reshape(rows, 2)


def _write(file: Path, found: Logps) -> None:
    numbers = found.tobytes()
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, hashlib.sha256(numbers).digest() + numbers)
    except (OSError, RunError) as problem:
        log.warning("the reference cannot be kept for the next time: %s", problem)
