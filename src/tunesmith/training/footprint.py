"""How much memory a training takes, found without a weight: tokens that hold no numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from tunesmith.hardware import GIB, Precision, choose_device, choose_precision
from tunesmith.logs import logger
from tunesmith.models.few_passes import as_on_a_gpu, use_few_passes
from tunesmith.models.head import chunk_size
from tunesmith.models.inner import inner_model
from tunesmith.models.layout import check_architecture
from tunesmith.models.load import load_config, quiet_libraries
from tunesmith.models.quantize.packed import find_packed
from tunesmith.models.quantize.storage import Storage, measure_storage
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import base_dtype
from tunesmith.models.row_attention import (
    CannotLieFlat,
    as_mask,
    one_after_another,
    use_row_attention,
)
from tunesmith.models.start import check_start, find_start
from tunesmith.models.targets import find_tokens
from tunesmith.models.tuning import apply_tuning, num_trainable
from tunesmith.recipe.method import Reward
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.section import MOST
from tunesmith.recipe.tuning import RESIDUAL, LoRA, Tuning
from tunesmith.training.optimizers.memory import Memory, count_memory
from tunesmith.training.optimizers.weights import list_weights

log = logger(__name__)
UNCOUNTED = 1.05
"""What is not counted, as measured on models of 5 and 109 million weights."""
COMPILED_BYTES = 80 * 1024**2
"""What the products compiled for 16 bits on a CPU take."""
CUDA_BYTES = 800 * 1024**2
"""What CUDA takes before the first tensor."""


@dataclass(frozen=True)
class Kept:
    """What a forward pass keeps for the way back, in bytes.

    Attributes:
        fixed: however few tokens it sees, such as weights in 16 bits.
        per_token: for each token.
        moved: of these, what may lie in main memory meanwhile.
    """

    fixed: float
    per_token: float
    moved: float = 0.0


@dataclass(frozen=True)
class Footprint:
    """What a training holds at its peak, in bytes.

    Attributes:
        num_weights: all numbers of the model, adapters included.
        num_trained: numbers that training changes.
        held: libraries, weights and the optimizer's memory.
        optimizer: what the optimizer holds and saves, and the gradients it moves by.
        head_gradient: what the loss sums up for the head, if it learns.
        logits: what computing logits takes for each token, and the most tokens at once.
        kept: finds out what a forward pass keeps, told whether activations are computed twice.
        passing: what passes by, for each token, on the way back through a layer.
        flat: whether rows may lie end to end, as far as shapes tell.
    """

    num_weights: int
    num_trained: int
    held: int
    optimizer: Memory
    head_gradient: int
    kept: Callable[[bool], Kept]
    passing: float
    logits: tuple[int, int]
    flat: bool

    def gib(
        self, tokens: int, *, checkpointing: bool, offload: bool = False, split: bool = True
    ) -> float:
        """Estimate the peak for batches of so many tokens.

        Args:
            offload: whether main memory keeps what activations are computed from again.
            split: whether an update is computed in several batches, so that the gradients of one
                are held while another goes forward; else they come as the activations go.
        """
        kept = self.kept(checkpointing)
        logits = self.logits[0] * min(tokens, self.logits[1])
        per_token = kept.per_token - (kept.moved if offload else 0.0)
        forward = kept.fixed + tokens * per_token + logits + self.head_gradient
        backward = self.optimizer.gradients_at_once + self.head_gradient
        working = forward + self.optimizer.gradients if split else max(forward, backward)
        return (self.held + working + tokens * self.passing) * UNCOUNTED / GIB


def measure_footprint(recipe: Recipe, folder: Path, longest: int) -> Footprint:
    """Send rows without numbers through the model of a recipe, and add up what is kept.

    Args:
        longest: tokens of the longest row; attention with a soft cap keeps its square.
    """
    quiet_libraries()
    import tunesmith.training.trainer  # noqa: F401  what it imports is held in training too

    device = choose_device(recipe.compute.device)
    precision = choose_precision(recipe.compute.precision, device)
    model, storage = _without_numbers(recipe, folder, precision)
    weights, trained = list(model.parameters()), num_trainable(model)
    optimizer = count_memory(
        recipe, list_weights(model, recipe), 2 if precision == "pure_bf16" else 4
    )
    stored = sum(weight.numel() * weight.element_size() for weight in weights)
    stored += _beside(model, recipe, trained)
    if storage is not None:
        working = storage.working(half=precision != "fp32")
        stored += storage.quantized - storage.plain + working
    libraries = psutil.Process().memory_info().rss if device.type == "cpu" else CUDA_BYTES
    flat = _may_lie_flat(model)
    sizes = _read_sizes(model, precision)
    head = inner_model(model).get_output_embeddings().weight
    if device.type == "cpu" and precision != "fp32":
        stored += COMPILED_BYTES
    return Footprint(
        num_weights=sum(weight.numel() for weight in weights),
        num_trained=trained,
        held=libraries + stored + optimizer.held,
        optimizer=optimizer,
        head_gradient=4 * head.numel() if head.requires_grad else 0,  # summed apart
        kept=_trials(model, precision, sizes, longest=longest, flat=flat, device=device.type),
        passing=float(sizes.width * (3 * sizes.inner + 4 * sizes.hidden)),
        logits=(8 * len(head), _logits_at_once(recipe, head)),
        flat=flat,
    )


def _beside(model: torch.nn.Module, recipe: Recipe, trained: int) -> int:
    """Count what a model holds beside weights: matrices that never learn, or what others were."""
    kept = {id(given): given.numel() * given.element_size() for given in model.buffers()}
    begins = isinstance(recipe.tuning, LoRA) and recipe.tuning.init in RESIDUAL
    return sum(kept.values()) + (4 * trained if begins else 0)


def _logits_at_once(recipe: Recipe, head: torch.Tensor) -> int:
    """Count the positions whose logits are computed at once: all if tokens are trained alone."""
    if isinstance(recipe.tuning, LoRA) and recipe.tuning.tokens:
        return MOST
    return chunk_size(len(head), learns_weight=head.requires_grad)


def _may_lie_flat(model: torch.nn.Module) -> bool:
    try:
        check_architecture(inner_model(model))
    except (CannotLieFlat, AttributeError):
        return False
    return True


def _without_numbers(
    recipe: Recipe, folder: Path, precision: Precision
) -> tuple[torch.nn.Module, Storage | None]:
    """Build the tuned model from shapes alone, and see what its layers take if quantized."""
    from transformers import AutoModelForCausalLM

    dtype = base_dtype(recipe, precision)
    with torch.device("meta"):
        base = AutoModelForCausalLM.from_config(load_config(folder), dtype=dtype)
        storage = measure_storage(base, recipe.model.quantize, find_packed(folder))
        model: torch.nn.Module = apply_tuning(base, *_tuning_by_shapes(recipe.tuning, folder))
    start = find_start(recipe)
    if start is not None and not isinstance(recipe.method, Reward):  # before a run is made for it
        check_start(model, start, folder)
    use_few_passes(model)
    return model.train(), storage


def _tuning_by_shapes(tuning: Tuning, folder: Path) -> tuple[Tuning, Sequence[int]]:
    """Leave out of a tuning what asks for numbers, and find the tokens it names."""
    if not isinstance(tuning, LoRA):
        return tuning, ()
    tokens = find_tokens(find_reader(folder).tokenizer, tuning.tokens) if tuning.tokens else ()
    return tuning.model_copy(update={"init": "default"}), tokens


@dataclass(frozen=True)
class _Sizes:
    """What a layer's activations are made of; width is bytes a number."""

    hidden: int
    inner: int
    layers: int
    width: int


def _read_sizes(model: Any, precision: Precision) -> _Sizes:
    config = model.config.get_text_config().to_dict()
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 1)
    return _Sizes(
        hidden=hidden,
        inner=int(config.get("intermediate_size") or 4 * hidden),
        layers=int(config.get("num_hidden_layers") or config.get("n_layer") or 1),
        width=4 if precision == "fp32" else 2,
    )


def _trials(
    model: Any,
    precision: Precision,
    sizes: _Sizes,
    *,
    longest: int,
    flat: bool,
    device: str,
) -> Callable[[bool], Kept]:
    """Try the model out when asked, once each way; most runs need to know one way only."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    kernels = as_on_a_gpu if device == "cuda" else nullcontext

    @cache
    def kept(checkpointing: bool) -> Kept:
        before = kept(False) if checkpointing else None
        try:
            with mode, kernels():
                if before is None:
                    _give_fake_numbers(model)
                else:
                    model.activation_checkpointing_enable({"use_reentrant": False})
                one, two = (
                    _saved_bytes(model, _rows(model, [longest] * rows, flat=flat), precision)
                    for rows in (1, 2)
                )
        except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError) as why:
            log.debug("no tokens without numbers for this model: %s", why)
            return _kept_by_sizes(sizes, checkpointing=checkpointing)
        fixed, per_token = max(0.0, 2 * one - two), (two - one) / longest
        if before is None:
            return Kept(fixed, per_token)
        # one layer at a time is computed again; its input and the next are at hand
        moved = per_token * max(0.0, 1 - 2 / sizes.layers)
        return Kept(fixed, per_token + before.per_token / sizes.layers, moved)

    return kept


def _kept_by_sizes(sizes: _Sizes, *, checkpointing: bool) -> Kept:
    layer = float(sizes.width * (14 * sizes.hidden + 5 * sizes.inner))
    if not checkpointing:
        return Kept(0.0, sizes.layers * layer)
    inputs = float(sizes.layers * sizes.hidden * sizes.width)
    return Kept(0.0, layer + inputs, inputs * max(0.0, 1 - 2 / sizes.layers))


def _give_fake_numbers(model: torch.nn.Module) -> None:
    """Put tensors that behave like the processor's in the place of bare shapes."""
    made: dict[int, torch.nn.Parameter] = {}
    for module in model.modules():
        for name, weight in module._parameters.items():
            if weight is not None:
                if id(weight) not in made:
                    empty = torch.empty(weight.shape, dtype=weight.dtype)
                    made[id(weight)] = torch.nn.Parameter(empty, weight.requires_grad)
                module._parameters[name] = made[id(weight)]
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)


def _saved_bytes(model: Any, rows: Mapping[str, torch.Tensor], precision: Precision) -> int:
    """Count the bytes that a forward pass keeps for the way back, weights left out."""
    weights = {given.untyped_storage()._cdata for given in model.parameters()}
    saved: dict[int, int] = {}

    def pack(given: torch.Tensor) -> torch.Tensor:
        storage = given.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return given

    mixed = torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda given: given), mixed:
        kept_alive = model(**rows, use_cache=False, logits_to_keep=1)
    del kept_alive
    return sum(saved.values())


def _rows(model: Any, rows: Sequence[int], *, flat: bool) -> dict[str, torch.Tensor]:
    """Lay rows end to end, or below each other."""
    if flat:
        use_row_attention(inner_model(model))
    else:
        return {"input_ids": torch.zeros(len(rows), max(rows), dtype=torch.long)}
    with unset_fake_temporarily():  # the segments are numbers
        mask = as_mask(one_after_another(rows))
    return {
        "input_ids": torch.zeros(1, sum(rows), dtype=torch.long),
        "position_ids": torch.cat([torch.arange(row) for row in rows])[None],
        "attention_mask": mask,
    }
