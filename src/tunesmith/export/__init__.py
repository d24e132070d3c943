"""From a run to a model that other programs load, published only if it answers the same."""

from __future__ import annotations

from tunesmith.export.gguf.export import export_gguf
from tunesmith.export.order import Exporter
from tunesmith.export.safetensors import export_safetensors

EXPORTERS: dict[str, Exporter] = {
    "safetensors": export_safetensors,
    "gguf": export_gguf,
}

__all__ = ["EXPORTERS", "Exporter"]
