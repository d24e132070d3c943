"""Choose the engine that answers, by name or by what is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tunesmith.errors import RequestError
from tunesmith.hardware import DeviceOption, PrecisionOption
from tunesmith.inference.batching.build import Built, build_engine
from tunesmith.inference.generate import BATCH_ROWS
from tunesmith.inference.own_model import OwnModel
from tunesmith.models.chat import Subject, find_subject, load_subject
from tunesmith.models.gguf_header import is_gguf
from tunesmith.paths import expand

EngineName = Literal["auto", "own", "generate", "llama.cpp", "vllm", "remote"]


@dataclass(frozen=True)
class Engines:
    """Which engine answers, and how.

    Attributes:
        name: `auto` takes llama.cpp for a GGUF, and our own for the rest.
        adapters: further runs, or files of GGUF adapters, by the names clients call them.
        rows: answers written at the same time; None for what suits.
        memory: GiB that our own may keep keys and values in; None for a share of what is free.
        longest: tokens of prompt and answer together that llama.cpp makes room for; None for
            what the model takes, up to 8,192.
        cache: numbers that llama.cpp keeps keys and values in.
        url: where a remote server's paths begin.
        key_file: holds the key for it.
        model: what it calls the model; the first that it lists if empty.
        tool_format: how the model writes calls of tools; None to find out.
    """

    name: EngineName = "auto"
    adapters: Mapping[str, str] = field(default_factory=dict)
    rows: int | None = None
    memory: float | None = None
    longest: int | None = None
    cache: Literal["f16", "f32"] | None = None
    precision: PrecisionOption | None = None
    device: DeviceOption | None = None
    url: str = ""
    key: str = ""
    model: str = ""
    tool_format: str | None = None
