"""What conversations may hold besides text, by the packages that are there."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from tunesmith.doctor.findings import Finding

PART = "conversations"
MORE = {
    "torchvision": ("Pixtral, Mistral 3", "take qwen2_5_vl, qwen3_vl, gemma3, internvl or llava"),
    "num2words": ("SmolVLM", "pip install num2words"),
}
"""Packages that processors of some families ask for: whose, and what to do."""


def look_at_senses() -> Iterator[Finding]:
    """Say what can be seen and heard, and which families lack something for it."""
    yield Finding(PART, "images", "Pillow, by the family's own processor")
    yield Finding(PART, "sounds", "WAV files")
    yield Finding(PART, "videos", "not read yet", "absent", "show single images of them")
    for package, (families, hint) in MORE.items():
        if find_spec(package) is None:
            yield Finding(PART, families, f"needs {package}, not installed", "absent", hint)
