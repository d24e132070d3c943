"""Write a run's model as one GGUF file, published only if llama.cpp says what the run said."""

from __future__ import annotations

from pathlib import Path

from tunesmith.errors import ExportError, require
from tunesmith.export.aside import writing_aside
from tunesmith.export.gguf.compare import prove
from tunesmith.export.gguf.families import find_family
from tunesmith.export.gguf.packing import PACKINGS, find_packer
from tunesmith.export.gguf.write import write_gguf
from tunesmith.export.merged import Tuned, load_merged
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.export.stored import stored_precision
from tunesmith.models.inspect import read_config
from tunesmith.models.load import refuse_scorer

MODEL = "model.gguf"
AS_STORED = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


def export_gguf(order: Order) -> Exported:
    """Write one file, with tokenizer and template in it."""
    packing = choose_packing(order)
    merged = load_merged(order, PACKINGS[packing].bytes_per_weight)
    with writing_aside(order.to) as aside:
        exported = write_proven(order, merged, packing, aside)
        write_report(order, exported, aside, PACKINGS[packing].limits)
    return exported


def choose_packing(order: Order) -> str:
    """Choose how weights are packed, and refuse what will not go before the model is loaded.

    Raises:
        ExportError: if the options say something else, or llama.cpp has no such model.
        MissingPackage: if gguf or xllamacpp is not installed.
    """
    if order.precision != "auto":
        raise ExportError(
            "--precision is how safetensors are stored",
            hint=f"write --quantize {AS_STORED[order.precision]}",
            where="--precision",
        )
    packing = order.quantize or AS_STORED[stored_precision(order.subject)]
    if packing not in PACKINGS:
        raise ExportError(
            f"there is no GGUF in {packing}",
            hint=f"write one of {', '.join(PACKINGS)}; or choose --format safetensors",
            where="--quantize",
        )
    check_tools(order)
    if PACKINGS[packing].main.endswith("_K"):
        find_packer()
    return packing


def check_tools(order: Order) -> None:
    """Refuse what will not go before anything is loaded.

    Raises:
        ModelError: if the model gives no answers.
        MissingPackage: if gguf or xllamacpp is not installed.
        ExportError: if llama.cpp has no such model.
    """
    subject = order.subject
    refuse_scorer(subject.adapter or subject.base)
    require("gguf", extra="gguf")
    require("xllamacpp", extra="gguf")
    config = read_config(subject.base / "config.json")
    find_family((config.get("architectures") or ["?"])[0], str(subject.base))


def write_proven(order: Order, tuned: Tuned, packing: str, aside: Path) -> Exported:
    """Write the file and let llama.cpp answer with it."""
    path = aside / MODEL
    write_gguf(tuned.chat, path, packing)
    distance, moved = prove(path, tuned, packing)
    return tuned.exported(order, aside, packing, distance, moved)
