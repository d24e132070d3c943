"""Adapters other than LoRA, as PEFT computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError
from tunesmith.models.targets import find_linear, find_targets, is_called, is_transposed
from tunesmith.recipe.tuning import HRA, IA3, OFT, AdaLoRA, Adapter, LoHa, LoKr, VeRA

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def add_other(model: PreTrainedModel, tuning: Adapter, common: dict[str, Any]) -> torch.nn.Module:
    """Add what a kind trains beside the chosen linear layers and freeze all else.

    Args:
        common: what all adapters ask of PEFT.
    """
    from peft import get_peft_model

    names = find_targets(model, tuning)
    linear = find_linear(model)
    layers = {name: linear[name] for name in names}
    config = BUILDERS[type(tuning)](tuning, layers, common)
    adapted: torch.nn.Module = get_peft_model(model, config, autocast_adapter_dtype=True)
    return adapted


def _adalora(tuning: AdaLoRA, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    """Say all but for how many updates: that is known when training begins."""
    from peft import AdaLoraConfig

    return AdaLoraConfig(
        init_r=tuning.first_rank,
        target_r=tuning.rank,
        lora_alpha=tuning.alpha or 2 * tuning.first_rank,
        total_step=1,
        **common,
    )


def _vera(tuning: VeRA, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    from peft import VeraConfig

    return VeraConfig(r=tuning.rank, save_projection=True, **common)


def round_shared(model: torch.nn.Module) -> None:
    """Keep the random matrices that layers share in bf16, as all beside them is."""
    import torch

    for name, matrix in model.named_buffers():
        if any(name.endswith(f"{shared}.default") for shared in ("vera_A", "vera_B")):
            matrix.data = matrix.data.to(torch.bfloat16)


def _oft(tuning: OFT, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    """Turn by Cayley's formula itself, not by the first terms of its series: lengths are kept."""
    from peft import OFTConfig

    upright = _upright(tuning, layers, common)
    for name, layer in layers.items():
        width = layer.in_features
        if width % tuning.block_size:
            raise RecipeError(
                f"{name} has {width} inputs, which no blocks of {tuning.block_size} fill",
                hint=f"write tuning.block_size: {_divisor(width, tuning.block_size)}, or name "
                "other layers in tuning.targets",
                where="tuning.block_size",
            )
    return OFTConfig(r=0, oft_block_size=tuning.block_size, use_cayley_neumann=False, **upright)


def _divisor(width: int, most: int) -> int:
    return next(size for size in range(min(width, most), 0, -1) if width % size == 0)


def _ia3(tuning: IA3, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    from peft import IA3Config

    for wanted in tuning.feedforward:
        if not any(is_called(name, wanted) for name in layers):
            raise RecipeError(
                f"no adapted layer is called {wanted}",
                hint="name layers of tuning.targets, or write tuning.feedforward: []",
                where="tuning.feedforward",
            )
    inputs = [n for n in layers if any(is_called(n, wanted) for wanted in tuning.feedforward)]
    return IA3Config(**{**common, "target_modules": list(layers)}, feedforward_modules=inputs)


def _hra(tuning: HRA, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    from peft import HRAConfig

    return HRAConfig(r=tuning.rank, **_upright(tuning, layers, common))


def _loha(tuning: LoHa, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    from peft import LoHaConfig

    return LoHaConfig(r=tuning.rank, alpha=tuning.rank, **_upright(tuning, layers, common))


def _lokr(tuning: LoKr, layers: dict[str, Any], common: dict[str, Any]) -> Any:
    from peft import LoKrConfig

    return LoKrConfig(r=tuning.rank, alpha=tuning.rank, **_upright(tuning, layers, common))


def _upright(tuning: Any, layers: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """Refuse layers that keep their weights the other way round, for kinds that know no such."""
    for name, layer in layers.items():
        if is_transposed(layer):
            raise RecipeError(
                f"{tuning.kind} cannot adapt {name}: it keeps its weights the other way round",
                hint="write tuning.kind: lora",
                where="tuning.kind",
            )
    return {option: value for option, value in common.items() if option != "fan_in_fan_out"}


BUILDERS: dict[type[Adapter], Callable[[Any, dict[str, Any], dict[str, Any]], Any]] = {
    AdaLoRA: _adalora,
    VeRA: _vera,
    OFT: _oft,
    IA3: _ia3,
    HRA: _hra,
    LoHa: _loha,
    LoKr: _lokr,
}
"""Who says to PEFT what a kind is."""
