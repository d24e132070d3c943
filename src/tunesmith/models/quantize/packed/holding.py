"""Hold the tensors of quantized layers while transformers reads them, then unpack them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from tunesmith.errors import ModelError
from tunesmith.models.quantize.grouped import Grouped
from tunesmith.models.quantize.packed.contents import ORIGINAL, Options, Packed
from tunesmith.models.quantize.storage import find_frozen
from tunesmith.models.reasons import few

TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
}


class _Held(torch.nn.Module):
    """The tensors of a layer, as files hold them, and the layer that will take them."""

    def __init__(self, layer: Grouped, tensors: Mapping[str, tuple[tuple[int, ...], str]]) -> None:
        super().__init__()
        self.layer = [layer]  # no part of the model yet
        self.weight = torch.empty(0)  # GPT-2 draws numbers into one before it reads
        for name, (shape, kind) in tensors.items():
            self.register_buffer(name, torch.empty(shape, dtype=TYPES[kind]))


def make_room(model: Any, packed: Packed) -> None:
    """Put what holds tensors in the places of the linear layers that are quantized."""
    weights = find_frozen(model)
    unknown = [name for name in packed.layers if name not in weights]
    if unknown:
        raise ModelError(
            f"quantized layers are the head, experts, or no part of the model: {few(unknown)}",
            hint=ORIGINAL,
            where=str(packed.folder),
        )
    for name, tensors in packed.layers.items():
        module: Any = model.get_submodule(name)
        out, width = weights[name].shape
        with torch.device("meta"):
            layer = Grouped(width, out, bias=False, source_cls=type(module))
            held = _Held(layer, tensors)
        model.set_submodule(name, held)


def fill(
    model: torch.nn.Module,
    packed: Packed,
    unpack: Callable[[Grouped, Mapping[str, torch.Tensor], Options], torch.nn.Module],
) -> None:
    """Unpack layer by layer, so that never two hold more than they need."""
    held = {name: module for name, module in model.named_modules() if isinstance(module, _Held)}
    for name, module in held.items():
        tensors = dict(module.named_buffers(recurse=False))
        layer = module.layer[0]
        try:
            filled: Any = unpack(layer, tensors, packed.options)
        except (ValueError, RuntimeError, IndexError) as problem:
            raise ModelError(
                f"the tensors of {name} do not make a weight of {layer.out_features} by "
                f"{layer.in_features}: {problem}",
                hint="config.json and the weights do not belong together; copy the folder again",
                where=str(packed.folder),
            ) from problem
        bias = tensors.get("bias")
        filled.bias = None if bias is None else torch.nn.Parameter(bias, requires_grad=False)
        model.set_submodule(name, filled)
    read: Any = model
    read.hf_quantizer.remove_quantization_config(read)
