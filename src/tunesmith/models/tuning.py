"""Choose which weights of a loaded model move."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError
from tunesmith.models.beginnings import keep_beginnings, kept_numbers
from tunesmith.models.blocks import add_blocks
from tunesmith.models.inner import reads_images, token_ends
from tunesmith.models.loftq import taken_numbers
from tunesmith.models.other_adapters import add_other
from tunesmith.models.parts import freeze_other_parts, keep_parts, language_names
from tunesmith.models.score import HEADS, find_score
from tunesmith.models.targets import (
    check_patterns,
    choose_layers,
    choose_modules,
    find_linear,
    find_targets,
    is_transposed,
    near_name,
)
from tunesmith.recipe.tuning import RESIDUAL, Adapter, Freeze, Full, LlamaPro, LoRA, Tuning

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAYER = re.compile(r"\.(?:layers|layer|h|blocks)\.(\d+)\.")


def apply_tuning(
    model: PreTrainedModel, tuning: Tuning, tokens: Sequence[int] = ()
) -> torch.nn.Module:
    """Return the model with exactly the weights of `tuning` open to training, in fp32.

    Args:
        tokens: ids of the tokens that `tuning` names.

    Raises:
        RecipeError: if the tuning names layers that the model does not have.
    """
    if isinstance(tuning, LoRA):
        return add_lora(model, tuning, tokens)
    if isinstance(tuning, Adapter):
        return add_other(model, tuning, describe_common(model, tuning))
    if isinstance(tuning, Freeze):
        open_layers(model, tuning)
    if isinstance(tuning, Full):
        freeze_other_parts(model, tuning)
    if isinstance(tuning, LlamaPro):
        open_blocks(model, tuning)
    return model


def open_blocks(model: PreTrainedModel, tuning: LlamaPro) -> None:
    """Put new blocks between those of a model and freeze all but them."""
    new = add_blocks(model, tuning.blocks)
    opened = {id(weight) for block in new for weight in block.parameters()}
    score = find_score(model)
    if score is not None:  # it is random
        opened |= {id(parameter) for parameter in score.parameters()}
    for weight in model.parameters():
        weight.requires_grad_(id(weight) in opened)


def add_lora(model: PreTrainedModel, tuning: LoRA, tokens: Sequence[int] = ()) -> torch.nn.Module:
    """Add low-rank matrices to the chosen linear layers and freeze all else."""
    from peft import LoraConfig, get_peft_model

    from tunesmith.models.thin_lora import use_thin_products

    common = describe_common(model, tuning)
    targets = find_targets(model, tuning)
    check_patterns(tuning.rank_pattern, targets, "tuning.rank_pattern")
    check_patterns(tuning.alpha_pattern, targets, "tuning.alpha_pattern")
    if tuning.init == "olora" and common["fan_in_fan_out"]:
        raise RecipeError(
            "olora cannot begin with layers that keep their weights the other way round",
            hint="write tuning.init: pissa",
            where="tuning.init",
        )
    twice = {} if tuning.alpha else {name: 2 * rank for name, rank in tuning.rank_pattern.items()}
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha or 2 * tuning.rank,
        rank_pattern=dict(tuning.rank_pattern),
        alpha_pattern={**tuning.alpha_pattern, **twice, **tuning.alpha_pattern},
        lora_dropout=tuning.dropout,
        use_rslora=tuning.rslora,
        use_dora=tuning.dora,
        init_lora_weights=INITS[tuning.init],
        trainable_token_indices=_places(model, tokens) or None,
        **common,
    )
    adapted: torch.nn.Module = get_peft_model(model, config, autocast_adapter_dtype=True)
    if tuning.init in RESIDUAL:
        keep_beginnings(adapted)
    if tuning.freeze_a:
        for name, weight in adapted.named_parameters():
            if ".lora_A." in name:
                weight.requires_grad_(False)
    use_thin_products(adapted)
    return adapted


INITS: dict[str, Any] = {
    "default": True,
    "orthogonal": "orthogonal",
    "pissa": "pissa",
    "pissa_niter": "pissa_niter_16",
    "olora": "olora",
    "eva": True,
    "loftq": True,
}
"""What PEFT calls the ways to begin; 16 rounds are what the authors of PiSSA advise."""


RUNNING = "running_mean"
"""How the names of what layers average while they are trained end (arXiv:1502.03167)."""


def describe_common(model: PreTrainedModel, tuning: Adapter) -> dict[str, Any]:
    """Say to PEFT what all its adapters ask."""
    modules = choose_modules(model, tuning, find_targets(model, tuning))
    images = reads_images(model)
    if any(name.endswith(RUNNING) for name, _ in model.named_buffers()):
        raise RecipeError(
            "the model keeps running averages of what it sees, and an adapter does not hold them",
            hint="write tuning.kind: full",
            where="tuning.kind",
        )
    if images:  # PEFT knows by itself of heads that read texts only
        modules += [name for name in HEADS if name in model._modules and name not in modules]
    return {
        "target_modules": choose_layers(model, tuning),
        "modules_to_save": modules or None,
        "fan_in_fan_out": any(is_transposed(layer) for layer in find_linear(model).values()),
        "task_type": None if images else _task(model),
    }


def _task(model: PreTrainedModel) -> str:
    return "SEQ_CLS" if find_score(model) is not None else "CAUSAL_LM"


def _places(model: PreTrainedModel, tokens: Sequence[int]) -> dict[str, list[int]]:
    """Say where tokens have numbers of their own: in the embeddings, and in a head apart."""
    if not tokens:
        return {}
    ends = [model.get_input_embeddings(), model.get_output_embeddings()]
    if ends[1] is None or ends[1].weight is ends[0].weight:
        del ends[1]
    names = {id(module): name for name, module in model.named_modules()}
    return {names[id(end)].rsplit(".", 1)[-1]: list(tokens) for end in ends}


def open_layers(model: PreTrainedModel, tuning: Freeze) -> None:
    """Freeze all but the first or last layers, or the parameters that are named."""
    names = [name for name, _ in model.named_parameters()]
    whole: set[str] = set()
    if not tuning.names:
        opened, names = keep_parts(model, names, tuning), language_names(model, names)
        whole = set(opened) - set(names)
    count = 1 + max((int(match[1]) for name in names if (match := LAYER.search(name))), default=-1)
    _check_layers(names, tuning, count)
    always = _embeddings(model) if tuning.embeddings else set()
    score = find_score(model)
    if score is not None:  # it is random
        always |= {id(parameter) for parameter in score.parameters()}
    counted = set(names) if tuning.names or "language" in tuning.parts else set()
    for name, parameter in model.named_parameters():
        chosen = name in whole or (name in counted and _is_chosen(name, tuning, count))
        parameter.requires_grad_(id(parameter) in always or chosen)


def _check_layers(names: Sequence[str], tuning: Freeze, count: int) -> None:
    """Refuse layers or parameters that are not there.

    Raises:
        RecipeError: naming the option.
    """
    if not tuning.names and any(".stages." in name for name in names):
        raise RecipeError(
            "the model has stages of layers, which are not counted",
            hint=f"name parameters in tuning.names, such as {names[len(names) // 2]}",
            where="tuning.layers",
        )
    if not tuning.names and abs(tuning.layers) > count:
        raise RecipeError(
            f"the model has {count} layers, {abs(tuning.layers)} are to be trained",
            hint=f"write a number up to {count}, or tuning.kind: full",
            where="tuning.layers",
        )
    if tuning.spread and count % tuning.layers:
        fitting = ", ".join(str(n) for n in range(1, count + 1) if count % n == 0)
        raise RecipeError(
            f"{tuning.layers} layers do not spread evenly over {count}",
            hint=f"write one of {fitting}",
            where="tuning.layers",
        )
    for wanted in tuning.names:
        if not any(wanted in name for name in names):
            near = near_name(wanted, names)
            some = names[len(names) // 2]
            raise RecipeError(
                f"no parameter's name contains {wanted}",
                hint=f"did you mean {near}?" if near else f"names look like {some}",
                where="tuning.names",
            )


def _embeddings(model: PreTrainedModel) -> set[int]:
    """Identify the parameters of the embeddings and the head."""
    return {
        id(parameter)
        for end in token_ends(model)
        if end is not None
        for parameter in end.parameters()
    }


def _is_chosen(name: str, tuning: Freeze, count: int) -> bool:
    if tuning.names:
        return any(wanted in name for wanted in tuning.names)
    match = LAYER.search(name)
    if match is None:
        return False
    layer = int(match[1])
    if tuning.spread:
        return layer % (count // tuning.layers) == count // tuning.layers - 1
    return layer >= count - tuning.layers if tuning.layers > 0 else layer < -tuning.layers


def num_trainable(model: torch.nn.Module) -> int:
    """Count the numbers that training may change."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def num_saved(model: torch.nn.Module) -> int:
    """Count the numbers that are saved: of a whole model all, of an adapter its own."""
    from peft import PeftModel, get_peft_model_state_dict

    if not isinstance(model, PeftModel):
        return sum(weight.numel() for weight in model.parameters())
    saved: dict[str, torch.Tensor] = get_peft_model_state_dict(model)
    numbers = sum(weight.numel() for weight in saved.values())
    kept = [*kept_numbers(model), *taken_numbers(model)]
    return numbers + sum(weight.numel() for weight in kept)


def is_full(tuning: Tuning) -> bool:
    """Whether a run saves whole models rather than adapters."""
    return not isinstance(tuning, Adapter)
