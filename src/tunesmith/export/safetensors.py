"""Write a run's model as safetensors, as a server loads it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.errors import ExportError
from tunesmith.export.aside import check_room, size_of, writing_aside
from tunesmith.export.classes import check_same_classes, distance_of, score_probes
from tunesmith.export.few_bits.export import export_few_bits
from tunesmith.export.layout import write_classifier, write_folder
from tunesmith.export.merged import count_weights, load_merged, merge
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.export.parity import check_distance, measure_distance, read_probes
from tunesmith.export.reward import export_reward
from tunesmith.export.stored import BYTES, dtype_of, keep_value_head, load_stored, precision_of
from tunesmith.models.chat import ChatModel, Subject
from tunesmith.models.classes import load_classifier
from tunesmith.models.inspect import is_scorer, labels_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def export_safetensors(order: Order) -> Exported:
    """Write one folder of safetensors with everything a server needs."""
    if order.quantize is not None:
        return export_few_bits(order)
    precision = precision_of(order)
    weights = order.subject.adapter or order.subject.base
    if labels_of(weights):
        return _export_classifier(order, precision)
    if is_scorer(weights):
        return export_reward(order, precision, BYTES[precision])
    found = load_merged(order, BYTES[precision])
    with writing_aside(order.to) as aside:
        _write(found.chat, aside, precision)
        keep_value_head(weights, aside)
        written = load_stored(aside, found.probes)
        distance = measure_distance(written, found.reference)
        check_distance(distance, precision, str(order.to))
        moved = None if found.trained is None else measure_distance(written, found.trained)
        exported = found.exported(order, aside, precision, distance, moved)
        write_report(order, exported, aside)
    return exported


def _export_classifier(order: Order, precision: str) -> Exported:
    """Write a classifier; its scores must be those of the tuned one."""
    if order.subject.blend is not None:
        raise ExportError(
            "a classifier is exported alone: heads of other adapters score other classes",
            hint="leave out --also and --weight",
            where=order.subject.name,
        )
    if order.run is None:
        raise ExportError(
            "a classifier is exported of a run, whose rows it is compared on",
            hint="give the name of a run; see `tunesmith runs list`",
            where=order.subject.name,
        )
    probes, to = read_probes(order.run), order.to
    tuned = load_classifier(order.subject, device="cpu")
    check_room(to, count_weights(tuned) * BYTES[precision])
    wanted = score_probes(tuned, probes)
    merged = replace(tuned, model=merge(tuned))
    ties = check_same_classes(score_probes(merged, probes), wanted, tuned.name)
    with writing_aside(to) as aside:
        model: PreTrainedModel = merged.model.to(dtype_of(precision))  # type: ignore[assignment]
        write_classifier(model, merged.reader, aside)
        written = load_classifier(Subject(to.name, aside), device="cpu")
        distance = distance_of(score_probes(written, probes), wanted)
        check_distance(distance, precision, str(to))
        size, labels = size_of(aside), len(tuned.labels)
        exported = Exported(to, precision, size, len(wanted), ties, distance, labels=labels)
        write_report(order, exported, aside)
    return exported


def _write(merged: ChatModel, folder: Path, precision: str) -> None:
    """Write the merged model in its final precision."""
    model: PreTrainedModel = merged.model.to(dtype_of(precision))  # type: ignore[assignment]
    write_folder(model, merged, folder)
