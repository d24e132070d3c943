"""Write a run's adapter alone, as PEFT and servers with many adapters load it."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace
from pathlib import Path

from tunesmith.errors import ExportError
from tunesmith.export.aside import size_of, writing_aside
from tunesmith.export.layout import write_reader
from tunesmith.export.merged import Tuned, load_tuned
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.export.parity import (
    check_distance,
    check_same_answers,
    check_tokens,
    measure_distance,
)
from tunesmith.models.beneath import NOTHING
from tunesmith.models.chat import load_subject
from tunesmith.models.inspect import ADAPTER, read_config
from tunesmith.models.load import refuse_scorer
from tunesmith.models.loftq import is_over_few_bits
from tunesmith.paths import exists, expand
from tunesmith.runs.write import write_json

WEIGHTS = "adapter_model.safetensors"


def export_adapter(order: Order) -> Exported:
    """Write the adapter with tokenizer and template; on its base it answers as the run does."""
    if order.quantize is not None or order.precision != "auto":
        raise ExportError(
            "an adapter is written as it was trained",
            hint="leave out --quantize and --precision",
            where="command line",
        )
    source = find_own(order)
    if order.subject.blend is not None:
        raise ExportError(
            "--format adapter writes the run's own as it was trained, not a part or a sum",
            hint="leave out --also and --weight, or write --format safetensors or gguf-adapter",
            where="command line",
        )
    tuned = load_tuned(order, 0)
    with writing_aside(order.to) as aside:
        write_json(aside / ADAPTER, {**read_config(source / ADAPTER), **_name_base(order)})
        shutil.copyfile(source / WEIGHTS, aside / WEIGHTS)
        write_reader(tuned.chat, aside)
        exported = _prove(order, tuned, aside)
        write_report(order, exported, aside)
    return exported


def find_own(order: Order) -> Path:
    """Find the adapter of a run.

    Raises:
        ModelError: if it gives no answers.
        ExportError: if it trained none, or one that says nothing without what lies beneath.
    """
    subject = order.subject
    refuse_scorer(subject.adapter or subject.base)
    if subject.adapter is None:
        raise ExportError(
            "the run trained whole weights, and no adapter",
            hint="use --format safetensors or gguf",
            where=subject.name,
        )
    if subject.beneath != NOTHING:
        raise ExportError(
            "the adapter was trained on a base that model.adapters or model.rope_scaling changed",
            hint="export both together with --format safetensors or gguf",
            where=subject.name,
        )
    if is_over_few_bits(subject.adapter):
        raise ExportError(
            "the adapter began as what few bits leave out (tuning.init: loftq), and adds to those "
            "alone",
            hint="export both together with --format safetensors or gguf",
            where=subject.name,
        )
    return subject.adapter


def _name_base(order: Order) -> dict[str, str]:
    """Name the base as others may find it: no folder of this machine."""
    if order.run is None:
        name = str(read_config(find_own(order) / ADAPTER).get("base_model_name_or_path") or "")
    else:
        name = order.run.recipe().model.name
    is_folder = Path(name).is_absolute() or exists(expand(name))
    return {"base_model_name_or_path": expand(name).name if is_folder else name}


def _prove(order: Order, tuned: Tuned, aside: Path) -> Exported:
    """Load base and written adapter as others would, and let them answer."""
    subject = replace(order.subject, adapter=aside, run=None)
    with warnings.catch_warnings():  # PEFT looks for the base by the name that others may have
        warnings.filterwarnings("ignore", "Could not find a config file", UserWarning)
        written = load_subject(subject, precision="fp32", device="cpu", whole=True)
    check_tokens(written, tuned.probes)
    ties = check_same_answers(written, tuned.reference)
    distance = measure_distance(written, tuned.reference)
    check_distance(distance, "fp32", str(order.to))
    return Exported(
        folder=order.to,
        precision="fp32",
        num_bytes=size_of(aside),
        num_probes=len(tuned.reference.prompts),
        near_ties=ties,
        distance=distance,
        from_quantized=measure_distance(written, tuned.trained) if tuned.trained else None,
        form=order.form,
    )
