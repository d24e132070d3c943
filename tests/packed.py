"""Tiny folders of quantized weights, packed number by number as their formats are written down."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests import tiny

GROUP = 16
OPTIONS: dict[str, dict[str, Any]] = {
    "gptq": {"quant_method": "gptq", "group_size": GROUP, "checkpoint_format": "gptq"},
    "awq": {"quant_method": "awq", "bits": 4, "group_size": GROUP, "version": "gemm"},
    "aqlm": {"quant_method": "aqlm", "num_codebooks": 2, "nbits_per_codebook": 8},
}


def make_packed(folder: Path, method: str, *, bits: int = 4, shape: str = "qwen2") -> Path:
    """Write a folder of quantized weights, and beside it one that holds what they mean."""
    sizes = {"hidden_size": 64, "intermediate_size": 96}  # words of 32 bits hold no 48
    whole = tiny.make_model(folder.with_name("whole"), shape, **sizes)
    shutil.copytree(whole, folder)
    tensors, meant = {}, {}
    torch.manual_seed(bits)
    for name, weight in load_file(whole / "model.safetensors").items():
        layer, _, kind = name.rpartition(".")
        if kind != "weight" or "_proj" not in layer:
            tensors[name] = meant[name] = weight
            continue
        held, meant[name] = PACKERS[method](*weight.shape, bits)
        tensors |= {f"{layer}.{part}": tensor.contiguous() for part, tensor in held.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    save_file(meant, whole / "model.safetensors", {"format": "pt"})
    tiny.change_json(folder / "config.json", quantization_config={**OPTIONS[method], "bits": bits})
    return folder


def gptq(out: int, width: int, bits: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    groups = width // GROUP
    codes = torch.randint(0, 2**bits, (out, width))
    zeros = torch.randint(1, 2**bits, (out, groups))
    scales = (torch.rand(out, groups) * 0.2 / 2**bits + 0.001).half()
    of = torch.arange(width)[torch.randperm(width)] // GROUP
    held = {
        "qweight": words(codes, bits).t(),  # numbers lie down the columns
        "qzeros": words((zeros - 1).t(), bits),
        "scales": scales.t(),
        "g_idx": of.int(),
    }
    return held, (codes - zeros[:, of]) * scales.float()[:, of]


def awq(out: int, width: int, bits: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes = torch.randint(0, 16, (out, width))
    zeros = torch.randint(0, 16, (out, width // GROUP))
    scales = (torch.rand(out, width // GROUP) * 0.02 + 0.001).half()
    of = torch.arange(width) // GROUP
    held = {
        "qweight": words(mixed(codes.t()), 4),
        "qzeros": words(mixed(zeros.t()), 4),
        "scales": scales.t(),
    }
    return held, (codes - zeros[:, of]) * scales.float()[:, of]


def mixed(codes: torch.Tensor) -> torch.Tensor:
    """Lay even ones of each eight before odd ones."""
    eights = codes.reshape(len(codes), -1, 8)
    return eights[..., [0, 2, 4, 6, 1, 3, 5, 7]].reshape(len(codes), -1)


def aqlm(out: int, width: int, bits: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    codes = torch.randint(-128, 128, (out, width // 8, 2), dtype=torch.int8)
    books = (torch.randn(2, 256, 1, 8) * 0.05).half()
    scales = (torch.rand(out, 1, 1, 1) + 0.5).half()
    meant = torch.zeros(out, width)
    for row in range(out):
        for group in range(width // 8):
            parts = [books[book, int(codes[row, group, book]) % 256, 0] for book in (0, 1)]
            total = (parts[0].float() + parts[1].float()) * scales[row].float().item()
            meant[row, group * 8 : group * 8 + 8] = total
    return {"codes": codes, "codebooks": books, "scales": scales}, meant


def words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Write each row as one long number, the first code lowest, and cut it into words of 32."""
    rows = []
    for row in codes.tolist():
        number = sum(code << place * bits for place, code in enumerate(row))
        count = len(row) * bits // 32
        cut = [number >> 32 * at & 0xFFFFFFFF for at in range(count)]
        rows.append([word - 2**32 if word >= 2**31 else word for word in cut])
    return torch.tensor(rows, dtype=torch.int32)


PACKERS = {"gptq": gptq, "awq": awq, "aqlm": aqlm}
