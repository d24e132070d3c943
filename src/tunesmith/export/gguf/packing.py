"""How each weight is stored, by the name of the whole mixture."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ExportError, require
from tunesmith.export.gguf.tensors import Tensor

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Packing:
    """A mixture.

    Attributes:
        file_type: its name in the gguf package.
        main: how most matrices are stored.
        fine: how those are that matter most; as the others if empty.
        bytes_per_weight: about how much room a weight takes.
        max_kl, min_top1: how far from the tuned model it may be: nats a token, and the share of
            tokens with the same likeliest choice.
    """

    file_type: str
    main: str
    fine: str
    bytes_per_weight: float
    max_kl: float
    min_top1: float

    @property
    def limits(self) -> dict[str, float]:
        """Return the limits by the names of the report."""
        return {"kl": self.max_kl, "top1": self.min_top1}


PACKINGS: dict[str, Packing] = {
    "f32": Packing("ALL_F32", "F32", "", 4, 1e-4, 1.0),
    "f16": Packing("MOSTLY_F16", "F16", "", 2, 0.02, 0.95),
    "bf16": Packing("MOSTLY_BF16", "BF16", "", 2, 0.02, 0.95),
    "q8_0": Packing("MOSTLY_Q8_0", "Q8_0", "", 1.07, 0.02, 0.95),
    "q6_k": Packing("MOSTLY_Q6_K", "Q6_K", "", 0.9, 0.05, 0.9),
    "q5_k_m": Packing("MOSTLY_Q5_K_M", "Q5_K", "Q6_K", 0.8, 0.1, 0.85),
    "q4_k_m": Packing("MOSTLY_Q4_K_M", "Q4_K", "Q6_K", 0.7, 0.25, 0.75),
}
COARSER = {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}
"""What stands in where a row is no multiple of 256, as in llama.cpp."""
HEADS = ("output.weight", "token_embd.weight")


def choose_types(tensors: list[Tensor], packing: Packing, layers: int) -> dict[str, str]:
    """Choose how each weight is stored, by llama.cpp's own rules for the mixture."""
    names = {tensor.name for tensor in tensors}
    head = next(name for name in HEADS if name in names)
    return {tensor.name: _fit(tensor, _wanted(tensor, packing, layers, head)) for tensor in tensors}


def _wanted(tensor: Tensor, packing: Packing, layers: int, head: str) -> str:
    """Keep vectors and routers whole, and pack finer what errors spread from."""
    if len(tensor.shape) == 1 or "ffn_gate_inp" in tensor.name:
        return "F32"
    if not packing.fine:
        return packing.main
    if tensor.name == head:
        return packing.fine
    if "attn_qkv" in tensor.name:
        return "Q5_K" if packing.main == "Q4_K" else packing.fine
    if ("attn_v." in tensor.name or "ffn_down" in tensor.name) and _matters(tensor.name, layers):
        return packing.fine
    return packing.main


def _matters(name: str, layers: int) -> bool:
    """Whether a layer is of the first or last eighth, or every third between."""
    layer, eighth = int(name.split(".")[1]), layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2


def _fit(tensor: Tensor, kind: str) -> str:
    """Take something coarser for rows that no block fits into."""
    row = tensor.shape[-1]
    if kind in COARSER and row % 256:
        kind = COARSER[kind]
    return "F16" if kind[0] == "Q" and row % 32 else kind


def pack(values: np.ndarray[Any, Any], kind: str) -> np.ndarray[Any, Any]:
    """Store values in fp32 as a kind says."""
    import numpy as np

    gguf = require("gguf", extra="gguf")
    if kind.endswith("_K"):
        return _pack_compiled(values, gguf.GGMLQuantizationType[kind])
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and the proof fails
        packed: np.ndarray[Any, Any] = gguf.quants.quantize(values, gguf.GGMLQuantizationType[kind])
    return packed


def _pack_compiled(values: np.ndarray[Any, Any], kind: Any) -> np.ndarray[Any, Any]:
    """Let llama.cpp's own code pack values, which is in the library of xllamacpp."""
    import numpy as np

    gguf = require("gguf", extra="gguf")
    quantize = find_packer()
    shape = gguf.quant_shape_to_byte_shape(values.shape, kind)
    packed = np.empty(shape, np.uint8)
    row = values.shape[-1]
    written = quantize(
        int(kind), values.ctypes.data, packed.ctypes.data, 0, values.size // row, row, None
    )
    if written != packed.nbytes:
        raise ExportError(
            f"llama.cpp wrote {written:,} bytes of {kind.name}, and not {packed.nbytes:,}",
            hint="install the version of xllamacpp that the extra gguf names",
            where="--quantize",
        )
    return packed


def find_packer() -> Any:
    """Find llama.cpp's function that packs rows.

    Raises:
        MissingPackage: if xllamacpp is not installed.
        ExportError: if its library hides the function.
    """
    library = ctypes.CDLL(str(require("xllamacpp.xllamacpp", extra="gguf").__file__))
    try:
        quantize = library.ggml_quantize_chunk
    except AttributeError:
        raise ExportError(
            "this build of xllamacpp does not give away what packs k-quants",
            hint="use --quantize q8_0, or the version that the extra gguf names",
            where="--quantize",
        ) from None
    pointer, count = ctypes.c_void_p, ctypes.c_int64
    quantize.argtypes = [ctypes.c_int, pointer, pointer, count, count, count, pointer]
    quantize.restype = ctypes.c_size_t
    return quantize
