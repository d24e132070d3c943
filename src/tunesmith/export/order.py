"""What an exporter is asked for, and what it hands back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from tunesmith.export.parity import CAST, NEAR_TIE, Distance
from tunesmith.models.chat import Subject
from tunesmith.runs.run import Run
from tunesmith.runs.write import write_json

Precision = Literal["auto", "fp32", "bf16", "fp16"]
REPORT = "parity.json"


@dataclass(frozen=True)
class Calibration:
    """The rows that GPTQ looks at.

    Attributes:
        file: of texts; None for the rows that the run learned from.
        rows: at most so many.
        tokens: of a row at most so many.
    """

    file: Path | None = None
    rows: int = 128
    tokens: int = 1024


@dataclass(frozen=True)
class Form:
    """What is written.

    Attributes:
        quantize: how weights are packed; what there is depends on the form.
        calibration: rows to look at while they are; None if that was not said.
    """

    name: str
    quantize: str | None = None
    calibration: Calibration | None = None


SAFETENSORS = Form("safetensors")


@dataclass(frozen=True)
class Order:
    """A model to write.

    Attributes:
        subject: of a run, with other adapters if they are added.
        run: None for a model that others trained.
        to: the folder to make; nothing is there yet.
        precision: how weights are stored.
        form: one of `EXPORTERS`.
        quantize: how weights are packed; None if that was not said.
        calibration: rows to look at while they are; None if that was not said.
    """

    subject: Subject
    run: Run | None
    to: Path
    precision: Precision = "auto"
    form: str = SAFETENSORS.name
    quantize: str | None = None
    calibration: Calibration | None = None

    @property
    def name(self) -> str:
        """Return what the model is called in reports: of folders the last part."""
        return Path(self.subject.name).name if self.run is None else self.run.name


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
        calibrated: tokens of the rows that weights were packed for; 0 if none were looked at.
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
    calibrated: int = 0
    form: str = SAFETENSORS.name
    scores: bool = False


Exporter = Callable[[Order], Exported]


LIMITS: dict[str, float] = asdict(CAST)


def write_report(
    order: Order, exported: Exported, folder: Path, limits: Mapping[str, float] = LIMITS
) -> None:
    """Put the proof into the folder."""
    blend = order.subject.blend
    found: dict[str, Any] = {**asdict(exported), "run": order.run and order.name}
    del found["folder"]
    if blend is not None:
        found["blend"] = {order.name: blend.own, **{str(folder): w for folder, w in blend.others}}
    proof = {**found, "limits": {**limits, "near_tie": NEAR_TIE}}
    write_json(folder / REPORT, proof)
