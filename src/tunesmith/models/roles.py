"""Make ready the models that a run trains with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.hardware import Precision, choose_device, choose_precision
from tunesmith.models.adapter import merge_adapters, restore_adapter
from tunesmith.models.autocast import number_type
from tunesmith.models.beneath import NOTHING, Beneath
from tunesmith.models.beside import load_beside
from tunesmith.models.chat import find_beneath
from tunesmith.models.classifier import load_classifier_model
from tunesmith.models.image_reader import ImageReader
from tunesmith.models.load import (
    build_random_model,
    check_vocabulary,
    count_embeddings,
    load_config,
    load_model,
    load_scorer,
)
from tunesmith.models.locate import locate
from tunesmith.models.other_adapters import round_shared
from tunesmith.models.reader import AnyReader, Reader, check_senses, find_any_reader, find_reader
from tunesmith.models.senses import sees
from tunesmith.models.start import check_start, find_start
from tunesmith.models.targets import find_tokens
from tunesmith.models.tuning import apply_tuning, is_full
from tunesmith.recipe.method import DPO, PPO, Classify, Reward
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.tuning import LoRA

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Roles:
    """The models of one run.

    Attributes:
        policy: what learns, with a head that tells values if its method learns by them.
        beside: a teacher, or a copy of the policy before training, if the method asks one.
    """

    policy: torch.nn.Module
    reader: AnyReader
    precision: Precision
    device: torch.device
    beside: torch.nn.Module | None = None


def load_reader(recipe: Recipe) -> AnyReader:
    """Load tokenizer and template of the recipe's model, or how it reads images.

    Raises:
        ModelError: if the method needs a chat template and there is none, or cannot learn from
            images.
    """
    reader = find_any_reader(recipe.model.name, recipe.model.template)
    if isinstance(recipe.method, Classify):
        return reader
    if isinstance(reader, ImageReader):
        raise ModelError(
            f"the model reads images alone, and {recipe.method.name} learns to write",
            hint="write method.name: classify, or name a language model",
            where=str(reader.folder),
        )
    if reader.template is None and recipe.method.name != "pretrain":
        raise ModelError(
            "the model has no chat template",
            hint="write model.template: chatml or alpaca, or method.name: pretrain for plain text",
            where=str(reader.folder),
        )
    return reader


def find_reference(recipe: Recipe) -> Path | None:
    """Find the folder of the model that answers are compared with; None if that is the base."""
    method = recipe.method
    if not isinstance(method, DPO) or method.reference in ("base", "none"):
        return None
    return locate(method.reference)


def check_reference(recipe: Recipe, reader: AnyReader) -> None:
    """Refuse a reference that reads other tokens than the model does.

    Raises:
        ModelError: naming both folders.
    """
    folder = find_reference(recipe)
    if folder is None or not isinstance(reader, Reader):
        return
    load_config(folder)
    theirs = find_reader(folder)
    if theirs.tokenizer.get_vocab() != reader.tokenizer.get_vocab():
        raise ModelError(
            "the reference has another vocabulary than the model, so it cannot judge its tokens",
            hint="name a reference of the same family, or write method.reference: base",
            where=f"{folder}, {reader.folder}",
        )
    check_senses(theirs, reader, "reference")


def load_reference(
    folder: Path, recipe: Recipe, roles: Roles, beneath: Beneath = NOTHING
) -> torch.nn.Module:
    """Load the model that answers are compared with, beside the policy.

    Args:
        beneath: what was changed of it before training began, if it is the base.
    """
    from tunesmith.models.few_passes import use_few_passes
    from tunesmith.models.seeing import let_see

    dtype = base_dtype(recipe, roles.precision)
    plain = load_model(folder, dtype=dtype, device=roles.device, rope=beneath.rope)
    model = merge_adapters(plain, folder, beneath)
    assert isinstance(roles.reader, Reader)
    check_vocabulary(folder, len(roles.reader.tokenizer), count_embeddings(model))
    use_few_passes(model)
    if roles.reader.senses is not None and sees(folder):
        let_see(model, roles.reader.senses)
    return model.requires_grad_(False)


def load_roles(recipe: Recipe, reader: AnyReader, labels: Sequence[str] = ()) -> Roles:
    """Load the policy with its tuning applied; new weights follow torch's current seed.

    Args:
        labels: what a classifier tells apart.
    """
    from tunesmith.models.few_passes import use_few_passes
    from tunesmith.models.seeing import let_see
    from tunesmith.models.shifted_attention import use_shifted_attention

    device = choose_device(recipe.compute.device)
    precision = choose_precision(recipe.compute.precision, device)
    dtype = base_dtype(recipe, precision)
    base = load_base(recipe, reader, labels, dtype=dtype, device=device)
    tokens: list[int] = []
    if isinstance(reader, Reader):
        check_vocabulary(reader.folder, len(reader.tokenizer), count_embeddings(base))
        named = recipe.tuning.tokens if isinstance(recipe.tuning, LoRA) else ()
        tokens = find_tokens(reader.tokenizer, named)
    policy = apply_tuning(base, recipe.tuning, tokens)
    start = find_start(recipe)
    if start is not None:
        check_start(policy, start, reader.folder, find_beneath(recipe.model))
        restore_adapter(policy, start)
    for weight in policy.parameters():
        weight.data = weight.data.to(_stored(weight, precision))
    if precision == "pure_bf16":
        round_shared(policy)
    use_few_passes(policy)
    if isinstance(reader, Reader) and reader.senses is not None:
        let_see(policy, reader.senses)
    if recipe.model.shifted_attention is not None:
        use_shifted_attention(policy, recipe.model.shifted_attention)
    if isinstance(recipe.method, PPO):
        from tunesmith.models.value import add_value_head

        add_value_head(policy)
    return Roles(policy, reader, precision, device, load_beside(recipe, precision, device))


def _stored(weight: torch.nn.Parameter, precision: Precision) -> torch.dtype:
    """Choose the numbers of a weight: what moves stays fp32, a new head too, unless all is bf16."""
    import torch

    if precision == "pure_bf16":  # what else a model holds, such as positions, stays exact
        return torch.bfloat16
    return torch.float32 if weight.requires_grad else weight.dtype


def load_base(
    recipe: Recipe,
    reader: AnyReader,
    labels: Sequence[str],
    *,
    dtype: torch.dtype,
    device: torch.device,
) -> PreTrainedModel:
    """Load what the policy is made of: a language model, or one with a head that scores."""
    if isinstance(recipe.method, Classify):
        scratch = recipe.model.from_scratch
        model = load_classifier_model(
            reader.folder, labels, dtype=dtype, device=device, scratch=scratch
        )
        return know_padding(model, reader) if isinstance(reader, Reader) else model
    assert isinstance(reader, Reader)
    beneath = find_beneath(recipe.model)
    if not isinstance(recipe.method, Reward):
        if recipe.model.from_scratch:
            return build_random_model(reader.folder, dtype=dtype, device=device)
        quantize = recipe.model.quantize
        plain = load_model(
            reader.folder, dtype=dtype, device=device, quantize=quantize, rope=beneath.rope
        )
        return merge_adapters(plain, reader.folder, beneath)
    model = load_scorer(reader.folder, dtype=dtype, device=device, new_head=True, rope=beneath.rope)
    return know_padding(merge_adapters(model, reader.folder, beneath), reader)


def know_padding(model: PreTrainedModel, reader: Reader) -> PreTrainedModel:
    """Let a model that scores know the token that texts are padded with."""
    config: Any = model.config.get_text_config()
    if config.pad_token_id is None:  # transformers scores several texts only if it knows one
        tokenizer = reader.tokenizer
        pad = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        config.pad_token_id = pad or 0
    return model


def base_dtype(recipe: Recipe, precision: Precision) -> torch.dtype:
    """Choose how weights are stored: what moves stays fp32 where products alone are in 16 bits."""
    import torch

    mixed = precision in ("bf16", "fp16")
    return torch.float32 if mixed and is_full(recipe.tuning) else number_type(precision)
