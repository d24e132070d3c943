"""What is changed of a base before training begins on it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tunesmith.models.fingerprint import weights_sha256


@dataclass(frozen=True)
class Beneath:
    """What lies beneath an adapter besides its base.

    Attributes:
        merged: folders of adapters that are added to the weights, one after another.
    """

    merged: tuple[Path, ...] = ()


NOTHING = Beneath()


def base_sha256(base: Path, beneath: Beneath = NOTHING) -> str:
    """Hash a base as training begins on it."""
    plain = weights_sha256(base)
    if beneath == NOTHING:
        return plain
    parts = [plain, *(weights_sha256(folder) for folder in beneath.merged)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
