"""What an exporter is asked for, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.export import parity
from tunesmith.export.parity import Distance
from tunesmith.models.chat import Subject
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_json

Precision = Literal["auto", "fp32", "bf16", "fp16"]
REPORT = "parity.json"


@dataclass(frozen=True)
class Form:
    """What is written.

    Attributes:
        quantize: how weights are packed; what there is depends on the form.
    """

    name: str
    quantize: str | None = None


SAFETENSORS = Form("safetensors")


@dataclass(frozen=True)
class Order:
    """A model to write.

    Attributes:
        subject: of a run, with other adapters if they are added.
        to: the folder to make; nothing is there yet.
        precision: how weights are stored.
        form: one of `EXPORTERS`.
        quantize: how weights are packed; None if that was not said.
    """

    subject: Subject
    run: Run
    to: Path
    precision: Precision = "auto"
    form: str = SAFETENSORS.name
    quantize: str | None = None


@dataclass(frozen=True)
class Exported:
    """A published model.

    Attributes:
        precision: how weights are stored or packed.
        near_ties: answers that differ only where two tokens were equally likely.
        distance: of the stored model from the tuned one, on the base in full precision.
        from_quantized: of the stored model from the adapter on the quantized base that it was
            trained on; None if the base was not quantized.
        labels: how many classes a classifier names; 0 for a model that answers.
        form: one of `EXPORTERS`.
        scores: whether it scores answers, and gives none.
    """

    folder: Path
    precision: str
    num_bytes: int
    num_probes: int
    near_ties: int
    distance: Distance
    from_quantized: Distance | None = None
    labels: int = 0
    form: str = SAFETENSORS.name
    scores: bool = False


Exporter = Callable[[Order], Exported]


LIMITS = {"kl": parity.MAX_KL, "top1": parity.MIN_TOP1}


def write_report(
    order: Order, exported: Exported, folder: Path, limits: Mapping[str, float] = LIMITS
) -> None:
    """Put the proof into the folder."""
    blend, run = order.subject.blend, order.run.name
    found: dict[str, Any] = {**asdict(exported), "run": run}
    del found["folder"]
    if blend is not None:
        found["blend"] = {run: blend.own, **{str(folder): w for folder, w in blend.others}}
    proof = {**found, "limits": {**limits, "near_tie": parity.NEAR_TIE}}
    write_json(folder / REPORT, proof)
