"""Choose which weights of a loaded model move."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError
from tunesmith.recipe.tuning import Freeze, Full, LoRA, Tuning

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "word_embeddings", "embed_out")


def apply_tuning(model: PreTrainedModel, tuning: Tuning) -> torch.nn.Module:
    """Return the model with exactly the weights of `tuning` open to training, in fp32.

    Raises:
        RecipeError: if the tuning names layers that the model does not have.
    """
    if isinstance(tuning, LoRA):
        return add_lora(model, tuning)
    if isinstance(tuning, Freeze):
        open_layers(model, tuning)
    return model


def add_lora(model: PreTrainedModel, tuning: LoRA) -> torch.nn.Module:
    """Add low-rank matrices to the chosen linear layers and freeze all else."""
    from peft import LoraConfig, get_peft_model

    if tuning.targets != ("all-linear",):
        check_targets(model, tuning.targets)
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha or 2 * tuning.rank,
        lora_dropout=tuning.dropout,
        target_modules="all-linear" if "all-linear" in tuning.targets else list(tuning.targets),
        task_type="CAUSAL_LM",
    )
    adapted: torch.nn.Module = get_peft_model(model, config, autocast_adapter_dtype=True)
    return adapted


def check_targets(model: PreTrainedModel, targets: tuple[str, ...]) -> None:
    """Refuse a target that matches no linear layer; PEFT alone would ignore it."""
    import torch

    layers = {
        name.rsplit(".", 1)[-1]
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
    }
    for target in targets:
        if target.rsplit(".", 1)[-1] not in layers and target != "all-linear":
            near = difflib.get_close_matches(target, layers, n=1)
            raise RecipeError(
                f"no linear layer of the model is called {target}",
                hint=f"did you mean {near[0]}?"
                if near
                else f"choose of {', '.join(sorted(layers))}",
                where="tuning.targets",
            )


def open_layers(model: PreTrainedModel, tuning: Freeze) -> None:
    """Freeze all but the first or last layers, or the parameters that are named."""
    names = [name for name, _ in model.named_parameters()]
    count = 1 + max((int(match[1]) for name in names if (match := LAYER.search(name))), default=-1)
    if not tuning.names and abs(tuning.layers) > count:
        raise RecipeError(
            f"the model has {count} layers, {abs(tuning.layers)} are to be trained",
            hint=f"write a number up to {count}, or tuning.kind: full",
            where="tuning.layers",
        )
    for wanted in tuning.names:
        if not any(wanted in name for name in names):
            raise RecipeError(
                f"no parameter's name contains {wanted}",
                hint=f"names look like {names[len(names) // 2]}",
                where="tuning.names",
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_is_open(name, tuning, count))


def _is_open(name: str, tuning: Freeze, count: int) -> bool:
    if tuning.embeddings and any(part in name for part in EMBEDDINGS):
        return True
    if tuning.names:
        return any(wanted in name for wanted in tuning.names)
    match = LAYER.search(name)
    if match is None:
        return False
    layer = int(match[1])
    return layer >= count - tuning.layers if tuning.layers > 0 else layer < -tuning.layers


def num_trainable(model: torch.nn.Module) -> int:
    """Count the numbers that training may change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def is_full(tuning: Tuning) -> bool:
    """Whether a run saves whole models rather than adapters."""
    return isinstance(tuning, Full | Freeze)
