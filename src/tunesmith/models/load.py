"""Load weights, all of them or none: the one place that calls from_pretrained for a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.inspect import ADAPTER, check_files, read_config
from tunesmith.models.quantize import check_package, find_misfits, hush, loading_options, settle
from tunesmith.models.quantize.packed import find_packed, refuse_packed, refuse_twice
from tunesmith.models.quantize.packed import loading_options as packed_options
from tunesmith.models.quantize.packed import settle as fill
from tunesmith.models.quantize.whole import make_whole
from tunesmith.models.reasons import few, reason_of
from tunesmith.models.score import SCORE
from tunesmith.recipe.quantize import Quantize
from tunesmith.settings import forbid_network

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

LM_HEAD = "lm_head."
"""How the names of a language model's head begin, where it is stored at all."""


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    quantize: Quantize | None = None,
    whole: bool = False,
) -> PreTrainedModel:
    """Load a causal language model from safetensors.

    Args:
        quantize: how its linear layers are kept, each from the moment it is read. A folder that
            was quantized before is kept as it is.
        whole: put the weights of such a folder together for good.

    Raises:
        MissingPackage: if the kind of quantization needs a package that is not installed.
        ModelError: if a tensor is missing, left over or of the wrong shape, if a file is
            damaged, or if the folder asks for code of its own.
    """
    refuse_scorer(folder)
    config = load_config(folder)
    from transformers import AutoModelForCausalLM

    how: dict[str, Any] = {"dtype": dtype}
    packed = find_packed(folder)
    if packed is not None:
        refuse_twice(packed, quantize)
        how = packed_options(packed, config, device)
    elif quantize is not None:
        check_package(quantize)
        how = loading_options(quantize, dtype=dtype, device=device)
    model, loaded = _read(AutoModelForCausalLM, folder, how)
    _refuse_partial(folder, loaded)
    if packed is not None:
        fill(model, packed)
        settle(model, dtype)
        if whole:
            make_whole(model, dtype)
        return model
    if quantize is not None:
        _refuse_partial(folder, {**loaded, "mismatched_keys": find_misfits(model, quantize)})
        settle(model, dtype, quantize)  # it lies on its device already
        return model
    return _move(model, device)


def load_scorer(
    folder: Path, *, dtype: torch.dtype, device: torch.device, new_head: bool = False
) -> PreTrainedModel:
    """Load a model with a head that scores a text by one number.

    Args:
        new_head: take a language model too, whose head is left and a random one put in its place,
            drawn from torch's current seed.

    Raises:
        ModelError: as `load_model` does, and if the family has no such head.
    """
    from transformers import AutoModelForSequenceClassification
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    )

    config = load_config(folder)
    refuse_packed(folder, "a reward model is not trained on quantized weights yet")
    unknown = ModelError(
        f"transformers knows no model of the architecture {config.model_type!r} that scores",
        hint="train a reward model on another family, such as qwen3 or llama",
        where=str(folder / "config.json"),
    )
    if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        raise unknown
    model, loaded = _read(AutoModelForSequenceClassification, folder, {"dtype": dtype})
    if SCORE not in model._modules:
        raise unknown
    if new_head and not is_scorer(folder):
        loaded = {
            **loaded,
            "missing_keys": [k for k in loaded["missing_keys"] if not k.startswith(SCORE)],
            "unexpected_keys": [k for k in loaded["unexpected_keys"] if not k.startswith(LM_HEAD)],
        }
    _refuse_partial(folder, loaded)
    return _move(model, device)


def is_scorer(folder: Path) -> bool:
    """Whether a folder of weights, or of an adapter, is of a model that scores texts."""
    if (folder / ADAPTER).is_file():
        return bool(read_config(folder / ADAPTER).get("task_type") == "SEQ_CLS")
    kinds = check_files(folder, weights=False).get("architectures") or ()
    return any(str(kind).endswith("ForSequenceClassification") for kind in kinds)


def refuse_scorer(folder: Path) -> None:
    """Refuse a reward model where answers are asked for."""
    if is_scorer(folder):
        raise ModelError(
            "this is a reward model: it scores answers and gives none",
            hint="measure it with `tunesmith evaluate`; chat, serve and export take models that "
            "answer, such as its base",
            where=str(folder),
        )


def _read(
    kind: Any, folder: Path, how: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read weights, and what did not fit among them."""
    check_files(folder)
    quiet_libraries()
    one_score = {"num_labels": 1} if "SequenceClassification" in kind.__name__ else {}
    try:
        with _without_notes():
            found: Any = kind.from_pretrained(
                str(folder),
                **one_score,
                **how,
                local_files_only=True,
                trust_remote_code=False,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # to name them ourselves
                output_loading_info=True,
            )
    except Exception as problem:  # safetensors, OSError, RuntimeError, ValueError, KeyError
        raise ModelError(
            f"the weights cannot be loaded: {reason_of(problem)}",
            hint="copy the model folder again and compare its checksums",
            where=str(folder),
        ) from problem
    return found[0], found[1]


@contextmanager
def _without_notes() -> Iterator[None]:
    """Let transformers report no tensor that is missing or left over: whoever loads does."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def build_random_model(
    folder: Path, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Build a model of random weights from a folder's config.json, by torch's current seed."""
    check_files(folder, weights=False)
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    config = load_config(folder)
    refuse_packed(folder, "and random weights are trained whole")
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return _move(model, device)


def quiet_libraries() -> None:
    """Silence progress bars and notes of the libraries underneath that mean nothing to a user."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    hush()
    # PEFT still uses the name that transformers 6 will drop.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # Which it would do otherwise than we do.
    warnings.filterwarnings("ignore", message="Using Rank-Stabilized LoRA with rank_pattern")


def count_embeddings(model: PreTrainedModel) -> int:
    """Count the token ids that a model has embeddings for."""
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return len(weight)


def _move(model: Any, device: torch.device) -> PreTrainedModel:
    moved: PreTrainedModel = model.to(device)
    return moved


def load_config(folder: Path) -> PreTrainedConfig:
    """Read the architecture of a model folder, without what it says of quantization.

    Raises:
        ModelError: if transformers does not know it, or a field is impossible.
    """
    forbid_network()
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    raw = check_files(folder, weights=False)
    kind = raw.get("model_type")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ModelError(
            f"the architecture {kind!r} is not a causal language model that transformers knows",
            hint="use a model of another family, or a newer tunesmith",
            where=str(folder / "config.json"),
        )
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as problem:
        raise ModelError(
            f"the configuration cannot be used: {reason_of(problem)}",
            hint="copy config.json of the model again",
            where=str(folder / "config.json"),
        ) from problem
    vars(config).pop("quantization_config", None)  # `find_packed` reads it
    return config


def check_vocabulary(folder: Path, num_tokens: int, num_embeddings: int) -> None:
    """Refuse a tokenizer that knows more tokens than the model has embeddings for."""
    if num_tokens > num_embeddings:
        raise ModelError(
            f"the tokenizer has {num_tokens:,} tokens, the model {num_embeddings:,} embeddings",
            hint="use the tokenizer that came with the model",
            where=str(folder),
        )


def _refuse_partial(folder: Path, loaded: dict[str, Any]) -> None:
    problems = {
        "missing": [str(key) for key in loaded["missing_keys"]],
        "not part of the model": [str(key) for key in loaded["unexpected_keys"]],
        "of another shape": [f"{name} {list(at)}" for name, at, _ in loaded["mismatched_keys"]],
        "not loaded": [str(message) for message in loaded["error_msgs"]],
    }
    for what, names in problems.items():
        if names:
            raise ModelError(
                f"tensors are {what}: {few(names)}",
                hint="config.json and the weights do not belong together; copy the folder again",
                where=str(folder),
            )
