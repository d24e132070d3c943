"""Make ready the models that a run trains with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import ModelError
from tunesmith.hardware import Precision, choose_device, choose_precision
from tunesmith.models.load import (
    build_random_model,
    check_vocabulary,
    count_embeddings,
    load_model,
)
from tunesmith.models.reader import Reader, find_reader
from tunesmith.models.tuning import apply_tuning, is_full
from tunesmith.recipe.options import Recipe

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Roles:
    """The models of one run; later methods add reference, reward and value."""

    policy: torch.nn.Module
    reader: Reader
    precision: Precision
    device: torch.device


def load_reader(recipe: Recipe) -> Reader:
    """Load tokenizer and template of the recipe's model.

    Raises:
        ModelError: if the method needs a chat template and there is none.
    """
    reader = find_reader(recipe.model.name, recipe.model.template)
    if reader.template is None and recipe.method.name != "pretrain":
        raise ModelError(
            "the model has no chat template",
            hint="write model.template: chatml or alpaca, or method.name: pretrain for plain text",
            where=str(reader.folder),
        )
    return reader


def load_roles(recipe: Recipe, reader: Reader) -> Roles:
    """Load the policy with its tuning applied; new weights follow torch's current seed."""
    import torch

    from tunesmith.models.few_passes import use_few_passes

    device = choose_device(recipe.compute.device)
    precision = choose_precision(recipe.compute.precision, device)
    dtype = base_dtype(recipe, precision)
    if recipe.model.from_scratch:
        base = build_random_model(reader.folder, dtype=dtype, device=device)
    else:
        quantize = recipe.model.quantize
        base = load_model(reader.folder, dtype=dtype, device=device, quantize=quantize)
    check_vocabulary(reader.folder, len(reader.tokenizer), count_embeddings(base))
    policy = apply_tuning(base, recipe.tuning)
    use_few_passes(policy)
    if precision == "pure_bf16":
        for weight in policy.parameters():  # what else it holds, such as positions, stays exact
            weight.data = weight.data.to(torch.bfloat16)
    return Roles(policy, reader, precision, device)


def base_dtype(recipe: Recipe, precision: Precision) -> torch.dtype:
    """Choose how weights are stored: what moves stays fp32 under bf16 computation."""
    import torch

    if precision == "fp32" or (precision == "bf16" and is_full(recipe.tuning)):
        return torch.float32
    return torch.bfloat16
