"""From a run to a model that other programs load, published only if it answers the same."""

from __future__ import annotations

from tunesmith.export.order import Exporter
from tunesmith.export.safetensors import export_safetensors

EXPORTERS: dict[str, Exporter] = {
    "safetensors": export_safetensors,
}

__all__ = ["EXPORTERS", "Exporter"]
