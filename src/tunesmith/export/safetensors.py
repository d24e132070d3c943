"""Write a run's model as safetensors, as a server loads it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError, ModelError, RecipeError
from tunesmith.export.aside import check_room, size_of, writing_aside
from tunesmith.export.classes import check_same_classes, distance_of, score_probes
from tunesmith.export.layout import write_classifier, write_folder
from tunesmith.export.merged import count_weights, load_merged, merge
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.export.parity import check_distance, check_tokens, measure_distance, read_probes
from tunesmith.export.reward import export_reward
from tunesmith.models.chat import ChatModel, Subject, find_subject, load_subject
from tunesmith.models.classes import load_classifier
from tunesmith.models.inspect import is_scorer, labels_of, read_config
from tunesmith.models.value import FILE, VALUE
from tunesmith.runs.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedModel

STORED = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
BYTES = {"fp32": 4, "bf16": 2, "fp16": 2}


def export_safetensors(order: Order) -> Exported:
    """Write one folder of safetensors with everything a server needs."""
    if order.quantize is not None:
        raise ExportError(
            f"--quantize {order.quantize} packs weights, which safetensors stores whole",
            hint="leave it out, or choose --format gguf",
            where="--quantize",
        )
    precision = stored_precision(order.run) if order.precision == "auto" else order.precision
    weights = order.subject.adapter or order.subject.base
    if labels_of(weights):
        return _export_classifier(order, precision)
    if is_scorer(weights):
        return export_reward(order, precision, BYTES[precision])
    found = load_merged(order, BYTES[precision])
    with writing_aside(order.to) as aside:
        _write(found.chat, aside, precision)
        _keep_value_head(weights, aside)
        written = _load_stored(aside, found.probes)
        distance = measure_distance(written, found.reference)
        check_distance(distance, precision, str(order.to))
        moved = None if found.trained is None else measure_distance(written, found.trained)
        exported = Exported(
            folder=order.to,
            precision=precision,
            num_bytes=size_of(aside),
            num_probes=len(found.reference.prompts),
            near_ties=found.near_ties,
            distance=distance,
            from_quantized=moved,
        )
        write_report(order, exported, aside)
    return exported


def _export_classifier(order: Order, precision: str) -> Exported:
    """Write a classifier; its scores must be those of the tuned one."""
    import torch

    if order.subject.blend is not None:
        raise ExportError(
            "a classifier is exported alone: heads of other adapters score other classes",
            hint="leave out --also and --weight",
            where=order.subject.name,
        )
    probes, to = read_probes(order.run), order.to
    tuned = load_classifier(order.subject, device="cpu")
    check_room(to, count_weights(tuned) * BYTES[precision])
    wanted = score_probes(tuned, probes)
    merged = replace(tuned, model=merge(tuned))
    ties = check_same_classes(score_probes(merged, probes), wanted, tuned.name)
    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    with writing_aside(to) as aside:
        model: PreTrainedModel = merged.model.to(dtypes[precision])  # type: ignore[assignment]
        write_classifier(model, merged.reader, aside)
        written = load_classifier(Subject(to.name, aside), device="cpu")
        distance = distance_of(score_probes(written, probes), wanted)
        check_distance(distance, precision, str(to))
        size, labels = size_of(aside), len(tuned.labels)
        exported = Exported(to, precision, size, len(wanted), ties, distance, labels=labels)
        write_report(order, exported, aside)
    return exported


def stored_precision(run: Run) -> str:
    """Name the precision in which the weights that a run started from are stored."""
    try:
        base = find_subject(run.path, base_only=True).base
    except (ModelError, RecipeError):  # a whole model can be exported when its base is gone
        base = run.model
    config = read_config(base / "config.json")
    text = config.get("text_config") or {}
    named = config.get("dtype") or config.get("torch_dtype") or text.get("dtype") or "float32"
    return STORED.get(str(named).removeprefix("torch."), "fp32")


def _write(merged: ChatModel, folder: Path, precision: str) -> None:
    """Write the merged model in its final precision."""
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    model: PreTrainedModel = merged.model.to(dtypes[precision])  # type: ignore[assignment]
    write_folder(model, merged, folder)


def _keep_value_head(weights: Path, folder: Path) -> None:
    """Keep what PPO goes on from, apart: servers load all weights that lie beside theirs."""
    if (weights / FILE).is_file():
        (folder / VALUE).mkdir()
        shutil.copyfile(weights / FILE, folder / VALUE / FILE)


def _load_stored(folder: Path, probes: Sequence[dict[str, Any]]) -> ChatModel:
    """Load what was written, as a server would."""
    stored = load_subject(Subject(folder.name, folder), precision="fp32", device="cpu")
    check_tokens(stored, probes)
    return stored
