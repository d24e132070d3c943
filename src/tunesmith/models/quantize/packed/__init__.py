"""Folders whose weights were quantized before.

Those of GPTQ, AWQ and AQLM are read without their packages: what files hold is unpacked and kept in
as few bits, so that such a base trains, answers and is merged on any machine as one does that we
quantize. What bitsandbytes wrote becomes the very layers that it makes for `model.quantize`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from tunesmith.errors import ModelError
from tunesmith.models.inspect import read_config
from tunesmith.models.quantize.packed import bnb
from tunesmith.models.quantize.packed.contents import ORIGINAL, Options, Packed
from tunesmith.models.reasons import few, reason_of
from tunesmith.recipe.quantize import Quantize

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from tunesmith.models.quantize.grouped import Grouped

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1}


@dataclass(frozen=True)
class Format:
    """How a method stores weights.

    Attributes:
        mark: the tensor that tells a quantized layer from a plain one.
        needed: tensors of each layer; others may be there too.
        refuse: says why options of a folder cannot be read, or nothing.
        unpack: fills a layer [in, out] from its tensors; None where bitsandbytes does.
    """

    mark: str
    needed: tuple[str, ...]
    refuse: Callable[[Options], str]
    unpack: Callable[[Grouped, Mapping[str, torch.Tensor], Options], torch.nn.Module] | None


def formats() -> dict[str, Format]:
    """List what is read, by method."""
    from tunesmith.models.quantize.packed import aqlm, awq, gptq

    return {
        "gptq": Format("qweight", ("qzeros", "scales"), gptq.refuse, gptq.unpack),
        "awq": Format("qweight", ("qzeros", "scales"), awq.refuse, awq.unpack),
        "aqlm": Format("codes", ("codebooks", "scales"), aqlm.refuse, aqlm.unpack),
        "nf4": Format("weight.absmax", bnb.needed("nf4"), bnb.refuse, None),
        "fp4": Format("weight.absmax", bnb.needed("fp4"), bnb.refuse, None),
        "int8": Format("SCB", ("weight",), bnb.refuse, None),
    }


def find_packed(folder: Path, config: dict[str, Any] | None = None) -> Packed | None:
    """Find out how a folder's weights are quantized; None if they are not.

    Raises:
        ModelError: if they are in a way that is not read.
    """
    found = (read_config(folder / "config.json") if config is None else config).get(
        "quantization_config"
    )
    if not found:
        return None
    options: Options = found if isinstance(found, dict) else {"quant_method": found}
    method = _method_of(options)
    known = formats().get(method)
    why = "which tunesmith cannot read" if known is None else known.refuse(options)
    if known is None or why:
        raise ModelError(
            f"the weights are quantized ({method}), {why}",
            hint=ORIGINAL,
            where=str(folder / "config.json"),
        )
    return _read_headers(folder, method, options, known)


def _method_of(options: Options) -> str:
    method = str(options.get("quant_method", "unknown"))
    return bnb.quantize_of(options).kind if method == bnb.METHOD else method


def refuse_packed(folder: Path, why: str) -> None:
    """Refuse quantized weights where whole ones are needed."""
    if read_config(folder / "config.json").get("quantization_config"):
        raise ModelError(
            f"the weights of this folder are quantized, {why}",
            hint="take the original model, in fp32, bf16 or fp16",
            where=str(folder / "config.json"),
        )


def refuse_twice(packed: Packed, quantize: Quantize | None) -> None:
    """Refuse to quantize what is quantized."""
    if quantize is not None:
        raise ModelError(
            f"the weights of this folder are quantized already ({packed.method})",
            hint="remove model.quantize, or take the original model",
            where=str(packed.folder),
        )


def _read_headers(folder: Path, method: str, options: Options, known: Format) -> Packed:
    """Find the quantized layers by what files hold: configurations leave out too much."""
    tensors: dict[str, dict[str, tuple[tuple[int, ...], str]]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118
                    layer, tensor = _parts(name)
                    given = file.get_slice(name)
                    tensors.setdefault(layer, {})[tensor] = (
                        tuple(given.get_shape()),
                        given.get_dtype(),
                    )
        except (SafetensorError, OSError) as problem:
            raise ModelError(
                f"the weights cannot be loaded: {reason_of(problem)}",
                hint="copy the model folder again and compare its checksums",
                where=str(path),
            ) from problem
    layers = {name: held for name, held in tensors.items() if known.mark in held}
    bare = [name for name, held in layers.items() if any(t not in held for t in known.needed)]
    if bare or not layers:
        raise ModelError(
            f"tensors of quantized layers are missing: {few(bare)}"
            if bare
            else f"config.json says that weights are quantized ({method}), the files hold none",
            hint="config.json and the weights do not belong together; copy the folder again",
            where=str(folder),
        )
    held = [tensor for tensors_of in layers.values() for tensor in tensors_of.values()]
    size = sum(prod(shape) * WIDTHS.get(kind, 4) for shape, kind in held)
    return Packed(folder, method, options, layers, size)


def _parts(name: str) -> tuple[str, str]:
    """Part the name of a tensor into its layer's and its own."""
    layer, inside, beside = name.partition(".weight.")
    if inside:
        return layer, f"weight.{beside}"
    layer, _, tensor = name.rpartition(".")
    return layer, tensor


def loading_options(packed: Packed, config: Any, device: torch.device) -> dict[str, Any]:
    """Tell transformers how to read a folder of quantized weights.

    Args:
        config: of the folder, without what it says of quantization.
    """
    from tunesmith.models.quantize.packed.holding import make_room
    from tunesmith.models.quantize.reading import Description

    where = {"device_map": {"": device}}
    if packed.made_by is not None:
        return {"dtype": "auto", "config": bnb.describe(config, packed.options), **where}
    how = Description(lambda model: make_room(model, packed))
    return {"dtype": "auto", "config": config, "quantization_config": how, **where}


def settle(model: PreTrainedModel, packed: Packed) -> None:
    """Put layers that compute in the places of what holds their tensors."""
    from tunesmith.models.quantize.packed.holding import fill

    unpack = formats()[packed.method].unpack
    if unpack is not None:
        fill(model, packed, unpack)
