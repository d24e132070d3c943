"""From a run to a model that other programs load, published only if it answers the same."""

from __future__ import annotations

from tunesmith.export.adapter import export_adapter
from tunesmith.export.gguf.adapter import export_gguf_adapter
from tunesmith.export.gguf.export import export_gguf
from tunesmith.export.ollama.export import export_ollama
from tunesmith.export.order import Exporter
from tunesmith.export.safetensors import export_safetensors

EXPORTERS: dict[str, Exporter] = {
    "safetensors": export_safetensors,
    "gguf": export_gguf,
    "ollama": export_ollama,
    "adapter": export_adapter,
    "gguf-adapter": export_gguf_adapter,
}

__all__ = ["EXPORTERS", "Exporter"]
