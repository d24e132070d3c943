"""Write packed.safetensors: layers as the packages store them, beside what they mean by them.

Needs gptqmodel 7.7.0 and aqlm 1.1.7, which nothing else here does:
`python tests/golden/make_packed.py` writes beside this file.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

OUT, WIDTH, GROUP = 32, 64, 32


def choose(weight: torch.Tensor, bits: int, order: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Choose scales and zeros of groups that may lie scattered; [out, groups]."""
    groups = [weight[:, order == group] for group in range(WIDTH // GROUP)]
    low = torch.stack([group.amin(1) for group in groups], 1).clamp(max=-1e-4)
    high = torch.stack([group.amax(1) for group in groups], 1).clamp(min=1e-4)
    scale = ((high - low) / (2**bits - 1)).half().float()
    return scale, (-low / scale).round().clamp(1, 2**bits - 1)


def gptq(bits: int, layout: str, *, scattered: bool) -> dict[str, torch.Tensor]:
    """A layer of GPTQ, and what gptqmodel reads in it."""
    from gptqmodel.nn_modules.qlinear.torch import TorchLinear
    from gptqmodel.quantization import QuantizeConfig
    from gptqmodel.utils.model import convert_gptq_v2_to_v1_format_module

    torch.manual_seed(bits)
    plain = torch.nn.Linear(WIDTH, OUT, bias=False).requires_grad_(False)
    order = torch.arange(WIDTH) // GROUP
    order = order[torch.randperm(WIDTH)] if scattered else order
    layer = TorchLinear(
        bits=bits, group_size=GROUP, sym=False, desc_act=scattered, in_features=WIDTH,
        out_features=OUT, bias=False,
    )  # fmt: skip
    layer.pack_original(plain, *choose(plain.weight, bits, order), order.int())
    layer.post_init()
    whole = layer.train().dequantize_weight().t().float()
    if layout == "gptq":
        convert_gptq_v2_to_v1_format_module(layer, QuantizeConfig(bits=bits, group_size=GROUP))
    names = ("qweight", "qzeros", "scales", "g_idx")
    return {**{name: getattr(layer, name).clone() for name in names}, "whole": whole}


def awq() -> dict[str, torch.Tensor]:
    """A layer of AWQ, and what gptqmodel reads in it."""
    from gptqmodel.nn_modules.qlinear.torch_awq import AwqTorchLinear
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm

    torch.manual_seed(0)
    plain = torch.nn.Linear(WIDTH, OUT, bias=False).requires_grad_(False)
    layer = AwqTorchLinear(
        bits=4, group_size=GROUP, sym=False, desc_act=False, in_features=WIDTH, out_features=OUT
    )
    layer.pack(plain, *choose(plain.weight, 4, torch.arange(WIDTH) // GROUP))
    held = {name: getattr(layer, name).clone() for name in ("qweight", "qzeros", "scales")}
    return {**held, "whole": dequantize_gemm(**held, bits=4, group_size=GROUP).t().float()}


def aqlm(books: int, bits: int) -> dict[str, torch.Tensor]:
    """A layer of AQLM, and what aqlm reads in it."""
    from aqlm.utils import _dequantize_weight, pack_int_data, unpack_int_data

    torch.manual_seed(books)
    codes = pack_int_data(torch.randint(0, 2**bits, (OUT, WIDTH // 8, books)), bits)
    codebooks = torch.randn(books, 2**bits, 1, 8).half()
    scales = torch.rand(OUT, 1, 1, 1).half()
    whole = _dequantize_weight(unpack_int_data(codes, bits), codebooks.float(), scales.float())
    return {"codes": codes, "codebooks": codebooks, "scales": scales, "whole": whole}


if __name__ == "__main__":
    layers = {
        **{f"gptq.{bits}": gptq(bits, "gptq", scattered=False) for bits in (2, 3, 4, 8)},
        "gptq.scattered": gptq(4, "gptq", scattered=True),
        "gptq_v2.3": gptq(3, "gptq_v2", scattered=True),
        "awq.4": awq(),
        "aqlm.2x8": aqlm(2, 8),
        "aqlm.1x9": aqlm(1, 9),
    }
    tensors = {
        f"{layer}.{name}": tensor.contiguous()
        for layer, held in layers.items()
        for name, tensor in held.items()
    }
    save_file(tensors, Path(__file__).with_name("packed.safetensors"))
