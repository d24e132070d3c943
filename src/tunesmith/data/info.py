"""LLaMA-Factory's `dataset_info.json`: sets described by name. Placeholder."""

from __future__ import annotations

from pathlib import Path

from tunesmith.data.rows import Kind
from tunesmith.recipe.data import Source


def describe_set(source: Source, info: Path | None, kind: Kind) -> Source | None:
    """Return the source with what the info file says of it; None if it is a path."""
    return None
