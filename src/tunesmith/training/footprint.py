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
from tunesmith.logs import logger, without_word_of
from tunesmith.models.autocast import mixing
from tunesmith.models.beside import compares
from tunesmith.models.chat import find_beneath
from tunesmith.models.classifier import auto_class, is_image_model
from tunesmith.models.few_passes import as_on_a_gpu, use_few_passes
from tunesmith.models.head import chunk_size
from tunesmith.models.image_reader import load_image_reader
from tunesmith.models.inner import inner_model, token_ends
from tunesmith.models.layout import check_architecture
from tunesmith.models.load import (
    language_class,
    load_config,
    quiet_libraries,
    read_architecture,
    scoring_class,
)
from tunesmith.models.quantize.packed import find_packed
from tunesmith.models.quantize.storage import Storage, measure_storage
from tunesmith.models.reader import find_reader
from tunesmith.models.roles import base_dtype
from tunesmith.models.rope_by_length import turn_as_short_texts, turns_by_length
from tunesmith.models.row_attention import (
    CannotLieFlat,
    as_mask,
    one_after_another,
    use_row_attention,
)
from tunesmith.models.score import find_score
from tunesmith.models.shifted_attention import check_shiftable
from tunesmith.models.start import check_start, find_start
from tunesmith.models.targets import find_tokens
from tunesmith.models.tuning import apply_tuning, is_full, num_trainable
from tunesmith.recipe.method import Classify, Online, Reward
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.rules.methods import asks_the_base
from tunesmith.recipe.section import MOST
from tunesmith.recipe.tuning import TAKING, LoRA, Tuning
from tunesmith.training.beside import held_at_first, held_beside, hidden_beside
from tunesmith.training.online.memory import NO_ROLLOUT, RolloutMemory, count_rollout
from tunesmith.training.optimizers.memory import Memory, count_memory
from tunesmith.training.optimizers.weights import list_weights
from tunesmith.training.sizes import Kept, Sizes, kept_by_sizes, read_sizes
from tunesmith.training.towers import Tower

log = logger(__name__)
FAKE = FakeTensorMode.__module__
BRIEF = {"use_cache": False}
"""How a model is asked for no more than is needed; one that writes for one logit too."""
UNCOUNTED = 1.05
"""What is not counted, as measured on models of 5 and 109 million weights."""
COMPILED_BYTES = 80 * 1024**2
"""What the products compiled for 16 bits on a CPU take."""
LOGIT_BYTES, COMPARED_BYTES = 8, 28
"""For each logit that is computed at once: itself and a copy; those of two models, and what their
difference is made of."""
HOLES = 1.5
"""What activations take where whole weights come and go between them: kept memory has holes then.

As measured on a CPU with 4 and 3 bits; memory given back at once has none, and costs time."""
CUDA_BYTES = 800 * 1024**2
"""What CUDA takes before the first tensor."""


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
        shared: whether two answers may lie behind one question.
        at_first: what is held before the first update only, when there is no optimizer yet.
        holes: by what activations take more where freed memory is kept.
        rollout: what writing answers takes, between updates.
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
    shared: bool = True
    at_first: int = 0
    holes: float = 1.0
    rollout: RolloutMemory = NO_ROLLOUT

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
        working += tokens * self.passing
        learning = working * (1 if checkpointing else self.holes)
        at_last = self.held + max(learning, self.rollout.bytes)
        at_first = self.held - self.optimizer.held + self.at_first
        return max(at_last, at_first + tokens * self.passing + logits) * UNCOUNTED / GIB


def measure_footprint(
    recipe: Recipe, folder: Path, longest: int, tower: Tower | None = None
) -> Footprint:
    """Send rows without numbers through the model of a recipe, and add up what is kept.

    Args:
        longest: tokens of the longest row; attention with a soft cap keeps its square.
        tower: what learns from what rows show.
    """
    quiet_libraries()
    import tunesmith.training.trainer  # noqa: F401  what it imports is held in training too

    device = choose_device(recipe.compute.device)
    precision = choose_precision(recipe.compute.precision, device)
    model, storage = _without_numbers(recipe, folder, precision)
    shared = not turns_by_length(model)
    turn_as_short_texts(model)
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
    beside, hidden = held_beside(recipe, precision), hidden_beside(recipe)
    image = load_image_reader(folder).shape if is_image_model(folder) else None
    flat = image is not None or _may_lie_flat(model)
    sizes = read_sizes(model, precision)
    head = _head(model)
    kept = _trials(model, precision, sizes, _Row(longest, flat, image), device=device.type)
    if device.type == "cpu" and precision != "fp32":
        stored += COMPILED_BYTES
    return Footprint(
        num_weights=sum(weight.numel() for weight in weights),
        num_trained=trained,
        held=libraries + stored + beside + optimizer.held,
        optimizer=optimizer,
        head_gradient=_summed_apart(recipe, head),
        kept=kept if tower is None else tower.add_to(kept, model, sizes.width),
        passing=float(sizes.width * (3 * sizes.inner + 4 * sizes.hidden + hidden)),
        logits=(
            (COMPARED_BYTES if compares(recipe) else LOGIT_BYTES) * len(head),
            _logits_at_once(recipe, head),
        ),
        flat=flat,
        shared=shared,
        at_first=held_at_first(recipe, model, precision, device.type),
        holes=HOLES if device.type == "cpu" and storage is not None else 1.0,
        rollout=count_rollout(recipe, model, longest, sizes.width),
    )


def _head(model: torch.nn.Module) -> torch.Tensor:
    """Return the weight whose result is the largest: of a model of images there is none."""
    _, end = token_ends(model)
    found: torch.Tensor = torch.zeros(1, 1, device="meta") if end is None else end.weight
    return found


def _beside(model: torch.nn.Module, recipe: Recipe, trained: int) -> int:
    """Count what is held beside a model's weights: what never learns, or what others were."""
    kept = {id(given): given.numel() * given.element_size() for given in model.buffers()}
    begins = isinstance(recipe.tuning, LoRA) and recipe.tuning.init in TAKING
    copied = isinstance(recipe.method, Online) and asks_the_base(recipe.method)
    weights = model.parameters() if copied and is_full(recipe.tuning) else ()
    copy = sum(weight.numel() * weight.element_size() for weight in weights)
    return sum(kept.values()) + (4 * trained if begins else 0) + copy


def _summed_apart(recipe: Recipe, head: torch.Tensor) -> int:
    """Count the gradient of a head that learns; where models are compared, a chunk's beside it."""
    if not head.requires_grad:
        return 0
    return 4 * head.numel() * (2 if compares(recipe) else 1)


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
    dtype, images = base_dtype(recipe, precision), is_image_model(folder)
    with torch.device("meta"):
        rope = recipe.model.rope_scaling
        config = read_architecture(folder) if images else load_config(folder, rope)
        scores = isinstance(recipe.method, Reward | Classify)
        texts = scoring_class if scores else language_class
        kind = auto_class(images=True) if images else texts(config)
        base = kind.from_config(config, dtype=dtype)
        packed = None if images else find_packed(folder)
        storage = measure_storage(base, recipe.model.quantize, packed)
        model: torch.nn.Module = apply_tuning(base, *_tuning_by_shapes(recipe.tuning, folder))
    start = find_start(recipe)
    if start is not None and not scores:  # before a run is made for it
        check_start(model, start, folder, find_beneath(recipe.model))
    if recipe.model.shifted_attention is not None:
        check_shiftable(model)
    use_few_passes(model)
    return model.train(), storage


def _tuning_by_shapes(tuning: Tuning, folder: Path) -> tuple[Tuning, Sequence[int]]:
    """Leave out of a tuning what asks for numbers, and find the tokens it names."""
    if not isinstance(tuning, LoRA):
        return tuning, ()
    tokens = find_tokens(find_reader(folder).tokenizer, tuning.tokens) if tuning.tokens else ()
    return tuning.model_copy(update={"init": "default"}), tokens


@dataclass(frozen=True)
class _Row:
    """The longest row; image is its shape if it is one."""

    tokens: int
    flat: bool
    image: tuple[int, ...] | None


def _trials(
    model: Any,
    precision: Precision,
    sizes: Sizes,
    row: _Row,
    *,
    device: str,
) -> Callable[[bool], Kept]:
    """Try the model out when asked, once each way; most runs need to know one way only."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    kernels = as_on_a_gpu if device == "cuda" else nullcontext

    @cache
    def kept(checkpointing: bool) -> Kept:
        before = kept(False) if checkpointing else None
        try:
            with mode, kernels(), without_word_of(FAKE):
                if before is None:
                    _give_fake_numbers(model)
                else:
                    model.activation_checkpointing_enable({"use_reentrant": False})
                one, two = (
                    _saved_bytes(model, _rows(model, row, count), precision) for count in (1, 2)
                )
        except (RuntimeError, NotImplementedError, AttributeError, TypeError, ValueError) as why:
            log.debug("no tokens without numbers for this model: %s", why)
            return kept_by_sizes(sizes, checkpointing=checkpointing)
        fixed, per_token = max(0.0, 2 * one - two), (two - one) / row.tokens
        if before is None:
            return Kept(fixed, per_token)
        # one layer at a time is computed again; its input and the next are at hand
        moved = per_token * max(0.0, 1 - 2 / sizes.layers)
        return Kept(fixed, per_token + before.per_token / sizes.layers, moved)

    return kept


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


def _saved_bytes(model: Any, rows: Mapping[str, Any], precision: Precision) -> int:
    """Count the bytes that a forward pass keeps for the way back, weights left out."""
    weights = {given.untyped_storage()._cdata for given in model.parameters()}
    saved: dict[int, int] = {}

    def pack(given: torch.Tensor) -> torch.Tensor:
        storage = given.untyped_storage()
        if storage._cdata not in weights:
            saved[storage._cdata] = storage.nbytes()
        return given

    hooks = torch.autograd.graph.saved_tensors_hooks(pack, lambda given: given)
    with hooks, mixing(precision, "cpu"):
        kept_alive = model(**rows)
    del kept_alive
    return sum(saved.values())


def _rows(model: Any, row: _Row, count: int) -> dict[str, Any]:
    """Lay some rows end to end, or below each other."""
    if row.image is not None:
        return {"pixel_values": torch.zeros(count, *row.image)}
    brief = BRIEF if find_score(model) else BRIEF | {"logits_to_keep": 1}
    if not row.flat:
        return {"input_ids": torch.zeros(count, row.tokens, dtype=torch.long), **brief}
    use_row_attention(inner_model(model))
    with unset_fake_temporarily():  # the segments are numbers
        mask = as_mask(one_after_another([row.tokens] * count))
    return {
        "input_ids": torch.zeros(1, count * row.tokens, dtype=torch.long),
        "position_ids": torch.arange(row.tokens).repeat(count)[None],
        "attention_mask": mask,
        **brief,
    }
