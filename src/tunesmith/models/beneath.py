"""What is changed of a base before training begins on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.models.fingerprint import weights_sha256
from tunesmith.recipe.rope import RopeScaling


@dataclass(frozen=True)
class Beneath:
    """What lies beneath an adapter besides its base.

    Attributes:
        merged: folders of adapters that are added to the weights, one after another.
        rope: how positions are stretched.
    """

    merged: tuple[Path, ...] = ()
    rope: RopeScaling | None = None


NOTHING = Beneath()


def base_sha256(base: Path, beneath: Beneath = NOTHING) -> str:
    """Hash a base as training begins on it."""
    return hash_with(weights_sha256(base), beneath)


def hash_with(sha256: str, beneath: Beneath) -> str:
    """Hash what was changed of a base together with the base's own hash."""
    if beneath == NOTHING:
        return sha256
    parts: list[Any] = [sha256, *(weights_sha256(folder) for folder in beneath.merged)]
    if beneath.rope is not None:
        parts.append(beneath.rope.model_dump(mode="json"))
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
