"""Write a run's LoRA as a GGUF that llama.cpp adds to its base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError, require
from tunesmith.export.adapter import find_own
from tunesmith.export.aside import size_of, writing_aside
from tunesmith.export.gguf.compare import prove
from tunesmith.export.gguf.export import check_tools
from tunesmith.export.gguf.families import Family
from tunesmith.export.gguf.packing import PACKINGS
from tunesmith.export.gguf.tensors import Tensor, interleave, list_tensors
from tunesmith.export.gguf.write import open_model, write_gguf, write_tensors
from tunesmith.export.merged import Tuned, load_tuned
from tunesmith.export.order import Exported, Order, write_report
from tunesmith.models.blend import what_else
from tunesmith.models.loftq import is_over_few_bits

if TYPE_CHECKING:
    import torch

ADAPTER = "adapter.gguf"
WHOLE = ("f32", "f16", "bf16")


def export_gguf_adapter(order: Order) -> Exported:
    """Write the adapter alone; with others beside it, their sum."""
    packing = order.quantize or "f32"
    if packing not in WHOLE or order.precision != "auto":
        raise ExportError(
            "the numbers of an adapter are stored whole",
            hint=f"write --quantize {', '.join(WHOLE)}, or leave it out",
            where="--quantize",
        )
    check_tools(order)
    _check_plain(find_own(order))
    tuned = load_tuned(order, PACKINGS["f32"].bytes_per_weight)
    with writing_aside(order.to) as aside:
        exported = _write_proven(order, tuned, packing, aside)
        write_report(order, exported, aside, PACKINGS[packing].limits)
    return exported


def _check_plain(folder: Path) -> None:
    """Refuse an adapter that llama.cpp would add only half."""
    why = what_else(folder)
    if is_over_few_bits(folder):
        why = "began as what few bits leave out (loftq)"
    if why:
        raise ExportError(
            f"llama.cpp adds plain lora alone, and the adapter {why}",
            hint="export the whole model with --format gguf",
            where=str(folder),
        )


def _write_proven(order: Order, tuned: Tuned, packing: str, aside: Path) -> Exported:
    """Write base and adapter, let llama.cpp answer with both, and keep the adapter."""
    adapted: Any = tuned.chat.model
    changes = _read_changes(adapted)
    bare = replace(tuned, chat=replace(tuned.chat, model=adapted.unload().eval()))
    base, adapter = aside / "base.gguf", aside / ADAPTER
    write_gguf(bare.chat, base, "f32")
    write_adapter(bare, changes, adapter, packing)
    distance, moved = prove(base, bare, packing, adapter)
    base.unlink()
    return Exported(
        folder=order.to,
        precision=packing,
        num_bytes=size_of(aside),
        num_probes=len(tuned.reference.prompts),
        near_ties=0,
        distance=distance,
        from_quantized=moved,
        form=order.form,
    )


Changes = dict[str, "tuple[torch.Tensor, torch.Tensor]"]
"""By the name of a weight W, A and B of what is added to it: W + B A / rank."""


def _read_changes(adapted: Any) -> Changes:
    """Take the products of all adapters that are switched on; several are one of higher rank."""
    import torch
    from peft.tuners.lora.layer import LoraLayer

    found: Changes = {}
    for name, layer in adapted.base_model.model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        active = [each for each in layer.active_adapters if each in layer.lora_A]
        if not active or not isinstance(layer.lora_A[active[0]], torch.nn.Linear):
            raise ExportError(
                f"llama.cpp adds nothing to {name}",
                hint="train without it in tuning.targets, or export with --format gguf",
                where="adapter",
            )
        first = torch.cat([layer.lora_A[each].weight.detach() for each in active])
        scaled = [layer.lora_B[each].weight.detach() * layer.scaling[each] for each in active]
        found[f"{name}.weight"] = (first.clone(), torch.cat(scaled, dim=1) * len(first))
    return found


def write_adapter(tuned: Tuned, changes: Changes, path: Path, packing: str) -> None:
    """Write the products beside their weights' names; llama.cpp divides each by its rank.

    Raises:
        ExportError: if llama.cpp adds nothing to one of these weights.
    """
    gguf = require("gguf", extra="gguf")
    model, config, family = open_model(tuned.chat)
    places = {tensor.source: tensor for tensor in list_tensors(model, family, config)}
    tensors: list[Tensor] = []
    for name, (first, second) in changes.items():
        place = places.get(name)
        if place is None or place.name == "token_embd.weight":
            raise ExportError(
                f"llama.cpp adds nothing to {name}",
                hint="train without it in tuning.targets, or export with --format gguf",
                where="adapter",
            )
        tensors += _products(place, first, _turn(second, name, family, config))
    writer = gguf.GGUFWriter(str(path), family.name)
    try:
        writer.add_type("adapter")
        writer.add_string("adapter.type", "lora")
        writer.add_float32("adapter.lora.alpha", 1.0)
        writer.add_file_type(gguf.LlamaFileType[PACKINGS[packing].file_type])
        write_tensors(writer, tensors, dict.fromkeys((t.name for t in tensors), packing.upper()))
    finally:
        writer.close()


def _turn(second: torch.Tensor, name: str, family: Family, config: Any) -> Any:
    """Order the rows of B as those of its weight."""
    rows = second.numpy()
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = heads.get(name.split(".")[-2])
    return interleave(rows, count) if family.interleaved and count else rows


def _products(place: Tensor, first: torch.Tensor, second: Any) -> list[Tensor]:
    a = first.numpy()
    return [
        Tensor(f"{place.name}.lora_a", place.source, a.shape, lambda: a),
        Tensor(f"{place.name}.lora_b", place.source, second.shape, lambda: second),
    ]
