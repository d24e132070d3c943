"""Load weights, all of them or none: the one place that calls from_pretrained for a model."""

from __future__ import annotations

import warnings
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.models.inspect import check_files
from tunesmith.models.reasons import few, reason_of
from tunesmith.settings import forbid_network

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel


def load_model(folder: Path, *, dtype: torch.dtype, device: torch.device) -> PreTrainedModel:
    """Load a causal language model from safetensors.

    Raises:
        ModelError: if a tensor is missing, left over or of the wrong shape, if a file is
            damaged, or if the folder asks for code of its own.
    """
    _refuse_quantized(folder, check_files(folder))
    load_config(folder)
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    try:
        found: Any = AutoModelForCausalLM.from_pretrained(
            str(folder),
            dtype=dtype,
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
    model: PreTrainedModel = found[0]
    _refuse_partial(folder, found[1])
    return _move(model, device)


def _refuse_quantized(folder: Path, config: dict[str, Any]) -> None:
    found = config.get("quantization_config")
    if found:
        kind = found.get("quant_method", "unknown") if isinstance(found, dict) else found
        raise ModelError(
            f"the weights are quantized ({kind}), which tunesmith cannot load yet",
            hint="take the original model, in fp32, bf16 or fp16",
            where=str(folder / "config.json"),
        )


def build_random_model(
    folder: Path, *, dtype: torch.dtype, device: torch.device
) -> PreTrainedModel:
    """Build a model of random weights from a folder's config.json, by torch's current seed."""
    check_files(folder, weights=False)
    quiet_libraries()
    from transformers import AutoModelForCausalLM

    config = load_config(folder)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype)
    return _move(model, device)


def quiet_libraries() -> None:
    """Silence progress bars and notes of the libraries underneath that mean nothing to a user."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    # bitsandbytes looks for a kernel of the hub's, and says so each time it is imported.
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
    # PEFT still uses the name that transformers 6 will drop.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")


def count_embeddings(model: PreTrainedModel) -> int:
    """Count the token ids that a model has embeddings for."""
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return len(weight)


def _move(model: Any, device: torch.device) -> PreTrainedModel:
    moved: PreTrainedModel = model.to(device)
    return moved


def load_config(folder: Path) -> PreTrainedConfig:
    """Read the architecture of a model folder.

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
