"""Choose the engine that answers with a model, and say why."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tunesmith.errors import ModelError
from tunesmith.hardware import DeviceOption, PrecisionOption
from tunesmith.inference.engine import Engine, Writer
from tunesmith.inference.generate import BATCH_ROWS
from tunesmith.inference.own_model import OwnModel
from tunesmith.models.chat import (
    ChatModel,
    Subject,
    find_subject,
    has_few_bits,
    load_subject,
)
from tunesmith.models.inspect import read_config

if TYPE_CHECKING:
    import torch

BASE = "base"
"""What clients call the model that adapters lie on."""
MANY = "a Llama-like model: many answers at once"


@dataclass(frozen=True)
class Built:
    """An engine.

    Attributes:
        kind: `batching` writes many answers at once, `generate` lets transformers write; the
            others are engines elsewhere; `embedding` writes nothing.
        why: one line for a person.
    """

    engine: Engine
    kind: Literal["batching", "generate", "embedding", "llama.cpp", "vllm", "remote"]
    why: str


def build_engine(
    name: str | Path | Subject,
    *,
    precision: PrecisionOption = "auto",
    device: DeviceOption = "auto",
    rows: int | None = None,
    memory: float | None = None,
) -> Built:
    """Load a model, or a run, into the fastest engine of this process that can answer with it.

    Args:
        rows: answers in work at the same time; None for what suits.
        memory: GiB that keys and values may take; None for a share of what is free.

    Raises:
        ModelError: if it cannot be loaded, or holds what the options ask in vain.
    """
    from tunesmith.inference.batching.weights import KINDS, OtherModel

    subject = find_subject(name)
    why = _why_not(subject, KINDS)
    if why is None:
        from tunesmith.inference.batching.engine import BatchingEngine

        base = subject if subject.adapter is None else replace(subject, name=BASE, adapter=None)
        try:
            engine = BatchingEngine(
                load_subject(base, precision, device), base, rows=rows, memory=memory
            )
        except OtherModel as other:
            why = str(other)
        else:
            if subject.adapter is not None:
                engine.put_on(subject.name, subject, first=True)
            return Built(engine, "batching", MANY)
    if memory is not None:
        raise ModelError(
            f"the memory of the cache cannot be chosen: transformers answers, as {why}",
            hint="leave it out",
            where=subject.name,
        )
    model = load_subject(subject, precision, device)
    own = OwnModel(model, rows=rows or BATCH_ROWS)
    return Built(own, "generate", _in_batches(why))


def build_writer(model: ChatModel, dtype: torch.dtype, *, rows: int) -> tuple[Writer, str]:
    """Let a model that learns meanwhile answer, in the fastest way that there is for it.

    Args:
        dtype: what its products are computed in.
        rows: answers in work at the same time.

    Returns:
        who writes, and why, one line for a person.
    """
    from tunesmith.inference.batching.policy import PolicyWriter
    from tunesmith.inference.batching.weights import OtherModel

    try:
        return PolicyWriter(model, dtype, rows=rows), MANY
    except OtherModel as other:
        return OwnModel(model, rows=rows), _in_batches(str(other))


def _in_batches(why: str) -> str:
    return f"transformers writes, in batches, as {why}"


def _why_not(subject: Subject, kinds: tuple[str, ...]) -> str | None:
    """Say why many answers at once cannot be written; None if they may."""
    from tunesmith.inference.batching.lora import find_more

    kind = read_config(subject.base / "config.json").get("model_type")
    if kind not in kinds:
        return f"a model of the kind {kind} is none of {', '.join(kinds)}"
    if has_few_bits(subject):
        return "the weights are kept in few bits"
    if subject.blend is not None:
        return "several adapters answer together"
    more = None if subject.adapter is None else find_more(subject.adapter)
    return None if more is None else f"the adapter {more}"
