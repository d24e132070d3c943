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
READERS = (
    ("MP4, MOV, MKV, WebM, AVI", ("av",), "video"),
    ("FLAC, OGG, MP3, AIFF", ("soundfile",), "audio"),
    ("sounds of another rate than the model's", ("soxr",), "audio"),
)
"""What extras read: the packages, and the extra."""
"""Packages that processors of some families ask for: whose, and what to do."""


def look_at_senses() -> Iterator[Finding]:
    """Say what can be seen and heard, and which families lack something for it."""
    yield Finding(PART, "images", "Pillow, by the family's own processor")
    yield Finding(PART, "sounds", "WAV files of plain numbers")
    yield Finding(PART, "videos", "animated GIF, WebP and PNG, and images in order, by Pillow")
    for what, packages, extra in READERS:
        absent = [package for package in packages if find_spec(package) is None]
        if absent:
            reason = f"needs {' and '.join(absent)}, not installed"
            yield Finding(PART, what, reason, "absent", f"pip install 'tunesmith[{extra}]'")
        else:
            yield Finding(PART, what, f"read by {' and '.join(packages)}")
    for package, (families, hint) in MORE.items():
        if find_spec(package) is None:
            yield Finding(PART, families, f"needs {package}, not installed", "absent", hint)
