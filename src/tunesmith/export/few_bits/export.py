"""Write a run's model in few bits, published only if it stays near the tuned one."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ExportError
from tunesmith.export.aside import writing_aside
from tunesmith.export.few_bits.kinds import Kind, find_kind
from tunesmith.export.few_bits.rows import read_rows
from tunesmith.export.layout import write_folder
from tunesmith.export.merged import Tuned, load_merged
from tunesmith.export.order import Calibration, Exported, Order, write_report
from tunesmith.export.parity import check_distance, measure_distance
from tunesmith.export.stored import dtype_of, keep_value_head, load_stored, precision_of
from tunesmith.models.inspect import is_scorer, labels_of, read_config
from tunesmith.runs.write import write_json

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from tunesmith.export.few_bits.pack import Layers

OLDER_CONFIG = "quantize_config.json"
"""Where tools looked before config.json said it."""


def export_few_bits(order: Order) -> Exported:
    """Write one folder of safetensors whose linear layers are packed."""
    name = order.quantize or ""
    kind = find_kind(name)
    _check_answers(order)
    rows = _read_rows(order, kind)
    found = load_merged(order, kind.bytes_per_weight)
    precision, where = precision_of(order), str(order.to)
    with writing_aside(order.to) as aside:
        layers = _write(found, kind, rows, precision, aside)
        keep_value_head(order.subject.adapter or order.subject.base, aside)
        written = load_stored(aside, found.probes)
        distance = measure_distance(written, found.reference)
        nearer = f"with --quantize {kind.nearer}" if kind.nearer != name else "without --quantize"
        check_distance(distance, name, where, kind.limits, layers.worst(), f"export {nearer}")
        moved = None if found.trained is None else measure_distance(written, found.trained)
        exported = found.exported(order, aside, name, distance, moved)
        exported = replace(exported, calibrated=sum(map(len, rows)))
        write_report(order, exported, aside, asdict(kind.limits))
    return exported


def _check_answers(order: Order) -> None:
    weights = order.subject.adapter or order.subject.base
    if labels_of(weights) or is_scorer(weights):
        raise ExportError(
            "a model that scores is not written in few bits",
            hint="leave out --quantize",
            where=order.subject.name,
        )


def _read_rows(order: Order, kind: Kind) -> list[list[int]]:
    if kind.method == "gptq":
        return read_rows(order, order.calibration or Calibration())
    return []


def _write(found: Tuned, kind: Kind, rows: list[list[int]], precision: str, folder: Path) -> Layers:
    """Pack the merged model, and write it."""
    from tunesmith.export.few_bits.pack import pack_bnb, pack_gptq

    dtype = dtype_of(precision)
    merged: PreTrainedModel = found.chat.model  # type: ignore[assignment]
    if kind.method == "gptq":
        layers = pack_gptq(merged, kind, rows)
    else:
        layers = pack_bnb(merged, kind, dtype)
    model: PreTrainedModel = merged.to(dtype)  # type: ignore[arg-type]
    write_folder(model, found.chat, folder, layers.state(model))
    config, described = folder / "config.json", layers.described
    write_json(config, {**read_config(config), "quantization_config": described})
    if kind.method == "gptq":
        write_json(folder / OLDER_CONFIG, described)
    return layers
