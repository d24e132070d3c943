"""Choose which weights of a loaded model move."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from tunesmith.errors import RecipeError
from tunesmith.models.score import SCORE, find_score
from tunesmith.recipe.tuning import Freeze, Full, LoRA, Tuning

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

ALL = "all-linear"
LAYER = re.compile(r"\.(?:layers|h|blocks)\.(\d+)\.")


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

    from tunesmith.models.thin_lora import use_thin_products

    layers = find_linear(model)
    check_targets(model, layers, tuning.targets)
    config = LoraConfig(
        r=tuning.rank,
        lora_alpha=tuning.alpha or 2 * tuning.rank,
        lora_dropout=tuning.dropout,
        target_modules=ALL if ALL in tuning.targets else list(tuning.targets),
        fan_in_fan_out=any(is_transposed(layer) for layer in layers.values()),
        task_type="SEQ_CLS" if find_score(model) is not None else "CAUSAL_LM",
    )
    adapted: torch.nn.Module = get_peft_model(model, config, autocast_adapter_dtype=True)
    use_thin_products(adapted)
    return adapted


def is_transposed(layer: torch.nn.Module) -> bool:
    """Whether a layer keeps its weight as [in, out], or did before it was quantized."""
    from transformers.pytorch_utils import Conv1D

    return vars(layer).get("source_cls", type(layer)) is Conv1D


def find_linear(model: PreTrainedModel) -> dict[str, torch.nn.Module]:
    """Find the layers that matrices can be added to, by name."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and name != SCORE
    }


def check_targets(
    model: PreTrainedModel, layers: dict[str, torch.nn.Module], targets: tuple[str, ...]
) -> None:
    """Refuse a target that matches no linear layer; PEFT alone would ignore it."""
    if not targets:
        raise _bad_target("no linear layer is named", f"write {ALL}, or names such as q_proj")
    for target in targets:
        found = [name for name in layers if name == target or name.endswith(f".{target}")]
        if target == ALL:
            continue
        if not found:
            near = _near(target, layers, tails=True)
            known = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers}))
            raise _bad_target(
                f"no linear layer of the model is called {target}",
                f"did you mean {near}?" if near else f"choose of {known}",
            )
        if ALL in targets:
            raise _bad_target(f"{target} has no effect beside {ALL}", "remove one of them")
        if any(_is_tied(model, layers[name]) for name in found):
            raise _bad_target(
                f"{target} cannot be adapted: it is one with the embeddings",
                "leave it out, or write tuning.kind: full",
            )


def _bad_target(message: str, hint: str) -> RecipeError:
    return RecipeError(message, hint=hint, where="tuning.targets")


def _is_tied(model: PreTrainedModel, layer: torch.nn.Module) -> bool:
    return layer.weight is model.get_input_embeddings().weight


def _near(wanted: str, names: Iterable[str], *, tails: bool = False) -> str | None:
    """Find the part of a dotted name, of as many words, that is nearest to `wanted`."""
    size = wanted.count(".") + 1
    parts = {
        ".".join(words[at : at + size])
        for words in (name.split(".") for name in names)
        for at in range(max(0, len(words) - size) if tails else 0, len(words) - size + 1)
    }
    return next(iter(difflib.get_close_matches(wanted, sorted(parts), n=1)), None)


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
            near = _near(wanted, names)
            some = names[len(names) // 2]
            raise RecipeError(
                f"no parameter's name contains {wanted}",
                hint=f"did you mean {near}?" if near else f"names look like {some}",
                where="tuning.names",
            )
    always = _embeddings(model) if tuning.embeddings else set()
    score = find_score(model)
    if score is not None:  # it is random
        always |= {id(parameter) for parameter in score.parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(id(parameter) in always or _is_chosen(name, tuning, count))


def _embeddings(model: PreTrainedModel) -> set[int]:
    """Identify the parameters of the embeddings and the head."""
    ends = (model.get_input_embeddings(), model.get_output_embeddings())
    return {id(parameter) for end in ends if end is not None for parameter in end.parameters()}


def _is_chosen(name: str, tuning: Freeze, count: int) -> bool:
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
