"""Models of one layer to try things on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

SIZES: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "tie_word_embeddings": False,
}
GROUP = 32


def make_tiny(folder: Path) -> Path:
    """Write a model of random weights."""
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from tunesmith.models.load import quiet_libraries

    quiet_libraries()
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LlamaConfig(**SIZES)).save_pretrained(str(folder))
    return folder


def make_packed(folder: Path, method: str, bits: int) -> Path:
    """Write the same model with random bits for weights, as a method stores them."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(folder.with_name("plain"), folder)
    tensors = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if "_proj" not in name:
            tensors[name] = weight
            continue
        out, width = weight.shape
        held = _random(method, out, width, bits)
        layer = name.removesuffix("weight")
        tensors |= {f"{layer}{part}": tensor.contiguous() for part, tensor in held.items()}
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = {"quant_method": method, "bits": bits, "group_size": GROUP}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


def _random(method: str, out: int, width: int, bits: int) -> dict[str, Any]:
    import torch

    def words(*shape: int) -> torch.Tensor:
        return torch.randint(-(2**31), 2**31, shape).int()

    scales = torch.full((width // GROUP, out), 0.2 / 2**bits).half()
    if method == "gptq":
        zeros = words(width // GROUP, out * bits // 32)
        return {"qweight": words(width * bits // 32, out), "qzeros": zeros, "scales": scales}
    if method == "awq":
        zeros = words(width // GROUP, out // 8)
        return {"qweight": words(width, out // 8), "qzeros": zeros, "scales": scales}
    return {
        "codes": torch.randint(-128, 128, (out, width // 8, 2)).to(torch.int8),
        "codebooks": (torch.randn(2, 256, 1, 8) * 0.1).half(),
        "scales": torch.ones(out, 1, 1, 1).half(),
    }
