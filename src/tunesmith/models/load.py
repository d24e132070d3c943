"""Load weights, all of them or none: the one place that calls from_pretrained for a model."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import ModelError
from tunesmith.logs import hush
from tunesmith.models.inspect import check_files, is_scorer, labels_of
from tunesmith.models.quantize import check_package, find_misfits, loading_options, settle
from tunesmith.models.quantize.packed import find_packed, refuse_packed, refuse_twice
from tunesmith.models.quantize.packed import loading_options as packed_options
from tunesmith.models.quantize.packed import settle as fill
from tunesmith.models.quantize.packed.contents import Packed
from tunesmith.models.quantize.whole import make_whole
from tunesmith.models.reasons import few, reason_of
from tunesmith.models.remote import not_built_in
from tunesmith.models.rope import stretch
from tunesmith.models.rope_by_length import turn_by_own_length
from tunesmith.models.score import SCORE
from tunesmith.models.scorer import scorer_class
from tunesmith.recipe.quantize import Quantize
from tunesmith.recipe.rope import RopeScaling
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
    rope: RopeScaling | None = None,
) -> PreTrainedModel:
    """Load a causal language model from safetensors.

    Args:
        quantize: how its linear layers are kept, each from the moment it is read. A folder that
            was quantized before is kept as it is.
        whole: put the weights of such a folder together for good.
        rope: how its positions are stretched.

    Raises:
        MissingPackage: if the kind of quantization needs a package that is not installed.
        ModelError: if a tensor is missing, left over or of the wrong shape, if a file is
            damaged, or if the folder asks for code of its own.
    """
    refuse_scorer(folder)
    config = load_config(folder, rope)
    packed = find_packed(folder)
    if packed is not None:
        refuse_twice(packed, quantize)
        quantize = packed.made_by
    how = _how_to_read(quantize, packed, config, dtype, device)
    model, loaded = read_weights(
        language_class(config), folder, {**_stretched(folder, rope), **how}
    )
    refuse_partial(folder, loaded)
    if packed is None and quantize is None:
        return move(model, device)
    if quantize is not None:
        refuse_partial(folder, {**loaded, "mismatched_keys": find_misfits(model, quantize)})
    if packed is not None:
        fill(model, packed)
    settle(model, dtype, quantize)  # it lies on its device already
    if packed is not None and whole:
        make_whole(model, dtype)
    return model


def _how_to_read(
    quantize: Quantize | None,
    packed: Packed | None,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    device: torch.device,
) -> dict[str, Any]:
    """Tell transformers what becomes of weights while they are read."""
    if quantize is not None:
        check_package(quantize)
    if packed is not None:
        return packed_options(packed, config, device)
    if quantize is not None:
        return loading_options(quantize, dtype=dtype, device=device)
    return {"dtype": dtype}


def load_scorer(
    folder: Path,
    *,
    dtype: torch.dtype,
    device: torch.device,
    new_head: bool = False,
    rope: RopeScaling | None = None,
) -> PreTrainedModel:
    """Load a model with a head that scores a text by one number.

    Args:
        new_head: take a language model too, whose head is left and a random one put in its place,
            drawn from torch's current seed.
        rope: how its positions are stretched.

    Raises:
        ModelError: as `load_model` does, and if the family has no such head.
    """
    config = load_config(folder)
    refuse_packed(folder, "a reward model is not trained on quantized weights yet")
    unknown = ModelError(
        f"transformers knows no model of the architecture {config.model_type!r} that scores",
        hint="train a reward model on another family, such as qwen3 or llama",
        where=str(folder / "config.json"),
    )
    kind = scorer_class(config, takes_more=takes_more(config.model_type))
    if kind is None:
        raise unknown
    how: dict[str, Any] = {"dtype": dtype, **_stretched(folder, rope)}
    if "config" in how:
        how["config"].num_labels = 1
    else:
        how["num_labels"] = 1
    model, loaded = read_weights(kind, folder, how)
    if SCORE not in model._modules:
        raise unknown
    if new_head and not is_scorer(folder):
        loaded = {
            **loaded,
            "missing_keys": [k for k in loaded["missing_keys"] if not k.startswith(SCORE)],
            "unexpected_keys": [k for k in loaded["unexpected_keys"] if not k.startswith(LM_HEAD)],
        }
    refuse_partial(folder, loaded)
    return move(model, device)


def refuse_scorer(folder: Path) -> None:
    """Refuse a model that scores where answers are asked for."""
    if labels_of(folder):
        raise ModelError(
            "this is a classifier: it names the class of a text or an image and gives no answers",
            hint="ask it with `tunesmith classify`, or measure it with `tunesmith evaluate`",
            where=str(folder),
        )
    if is_scorer(folder):
        raise ModelError(
            "this is a reward model: it scores answers and gives none",
            hint="measure it with `tunesmith evaluate`, or export it as safetensors; chat, serve "
            "and other exports take models that answer, such as its base",
            where=str(folder),
        )


def read_weights(
    kind: Any, folder: Path, how: Mapping[str, Any]
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Read weights, and what did not fit among them."""
    check_files(folder)
    quiet_libraries()
    try:
        with without_notes():
            found: Any = kind.from_pretrained(
                str(folder),
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
    turn_by_own_length(found[0])
    return found[0], found[1]


def _stretched(folder: Path, rope: RopeScaling | None) -> dict[str, Any]:
    """Say how positions are stretched, if they are."""
    return {} if rope is None else {"config": load_config(folder, rope)}


@contextmanager
def without_notes() -> Iterator[None]:
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
    config = load_config(folder)
    refuse_packed(folder, "and random weights are trained whole")
    model: PreTrainedModel = language_class(config).from_config(config, dtype=dtype)
    turn_by_own_length(model)
    return move(model, device)


def quiet_libraries() -> None:
    """Silence progress bars and notes of the libraries underneath that mean nothing to a user."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    hush()
    # PEFT still uses the name that transformers 6 will drop.
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated")
    # Of experts, where patterns of ours were checked before.
    warnings.filterwarnings("ignore", message=r"The following \w+_pattern keys did not match")
    # Which it would do otherwise than we do.
    warnings.filterwarnings("ignore", message="Using Rank-Stabilized LoRA with rank_pattern")


def count_embeddings(model: PreTrainedModel) -> int:
    """Count the token ids that a model has embeddings for."""
    weight: torch.Tensor = model.get_input_embeddings().weight  # type: ignore[assignment]
    return len(weight)


def move(model: Any, device: torch.device) -> PreTrainedModel:
    """Move a model to a device."""
    moved: PreTrainedModel = model.to(device)
    return moved


def load_config(folder: Path, rope: RopeScaling | None = None) -> PreTrainedConfig:
    """Read the architecture of a language model, without what it says of quantization.

    Positions are stretched if they are to be.

    Raises:
        ModelError: if transformers does not know it, or a field is impossible.
    """
    forbid_network()
    kind = check_files(folder, weights=False).get("model_type")
    if not isinstance(kind, str) or not (writes_text(kind) or takes_more(kind)):
        raise not_built_in(folder / "config.json", kind)
    config = read_architecture(folder)
    if rope is not None:
        stretch(config, rope)
    return config


def writes_text(kind: str) -> bool:
    """Whether a family's models, by their model_type, go on with text."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def takes_more(kind: str) -> bool:
    """Whether they write text and take more than text: they have a processor."""
    from transformers.models.auto import processing_auto
    from transformers.models.auto.modeling_auto import MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES

    processed = vars(processing_auto)["PROCESSOR_MAPPING_NAMES"]
    return kind in MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES and kind in processed


def scoring_class(config: PreTrainedConfig) -> Any:
    """Return the class of a family's models that score; where there is none, of those that write.

    Whoever loads refuses the latter.
    """
    found = scorer_class(config, takes_more=takes_more(config.model_type))
    return language_class(config) if found is None else found


def language_class(config: PreTrainedConfig) -> Any:
    """Return transformers' class of models that go on with text, and see if theirs do."""
    from transformers import AutoModelForCausalLM, AutoModelForMultimodalLM

    return AutoModelForMultimodalLM if takes_more(config.model_type) else AutoModelForCausalLM


def read_architecture(folder: Path) -> PreTrainedConfig:
    """Read the architecture of a model folder, whatever the model is for.

    Raises:
        ModelError: if a field is impossible.
    """
    from transformers import AutoConfig

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


def refuse_partial(folder: Path, loaded: dict[str, Any]) -> None:
    """Refuse a model of which not every tensor was read, and no other."""
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
