"""Estimate what a run needs before it starts: memory, disk and time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.errors import RunError
from tunesmith.hardware import GIB, Precision, disk_free, memory_gib
from tunesmith.models.roles import Roles
from tunesmith.models.tuning import is_full, num_trainable
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

LIBRARIES_GIB = 0.6
BATCH_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Tokens of a batch beyond which nothing gets faster."""
SMALLEST_BATCH = 512
ADAM_BYTES = 8
EFFICIENCY = 0.5
"""Share of the plain matrix product's rate that a whole step reaches."""
STEP_SECONDS = 0.03
"""What an update costs besides its products, however small it is."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that decide what a step costs.

    Attributes:
        num_weights: all numbers of the model, adapters included.
        num_trained: numbers that training changes.
    """

    num_weights: int
    num_trained: int
    hidden: int
    inner: int
    layers: int
    vocab: int


def shape_of(model: torch.nn.Module, trained: int) -> Shape:
    """Read the sizes from a model's configuration; unusual names fall back to the weights."""
    config = model.config.get_text_config().to_dict()  # type: ignore[union-attr,operator]
    hidden = int(config.get("hidden_size") or config.get("n_embd") or 1)
    return Shape(
        num_weights=sum(parameter.numel() for parameter in model.parameters()),
        num_trained=trained,
        hidden=hidden,
        inner=int(config.get("intermediate_size") or 4 * hidden),
        layers=int(config.get("num_hidden_layers") or config.get("n_layer") or 1),
        vocab=int(config.get("vocab_size") or 1),
    )


def estimate_gib(
    shape: Shape, *, tokens: int, precision: Precision, full: bool, checkpointing: bool
) -> float:
    """Estimate the peak memory of training in GiB.

    Args:
        tokens: tokens of the largest micro-step, padding included.
    """
    from tunesmith.models.head import CHUNK_BYTES

    width = 4 if precision == "fp32" else 2
    stored = 4 if precision == "fp32" or (precision == "bf16" and full) else 2
    moved = 2 if precision == "pure_bf16" else 4
    weights = shape.num_weights * stored
    training = shape.num_trained * (moved + 2 * moved)
    layer = tokens * (shape.hidden * 14 + shape.inner * 5) * width
    activations = (
        layer + tokens * shape.hidden * width * shape.layers
        if checkpointing
        else layer * shape.layers
    )
    logits = 4 * CHUNK_BYTES
    return LIBRARIES_GIB + (weights + training + activations + logits) / GIB


@dataclass(frozen=True)
class Batching:
    """How an update is computed; changes speed and memory only.

    Attributes:
        tokens: most tokens of a batch, padding included; a longer row is a batch of its own.
        checkpointing: whether activations are computed twice.
        gib: estimated peak memory.
    """

    tokens: int
    checkpointing: bool
    gib: float


def choose_batching(
    shape: Shape,
    recipe: Recipe,
    lengths: npt.NDArray[np.int32],
    *,
    precision: Precision,
    device: torch.device,
) -> Batching:
    """Choose the fastest way that fits into memory; if none does, the smallest."""
    free = free_gib(recipe, device)
    longest = int(lengths.max())
    option, asked = recipe.compute.gradient_checkpointing, recipe.compute.tokens_per_batch
    largest = asked or BATCH_TOKENS.get(device.type, BATCH_TOKENS["cpu"])
    sizes = [largest]
    while not asked and sizes[-1] > max(longest, SMALLEST_BATCH):
        sizes.append(sizes[-1] // 2)
    chosen = None
    for checkpointing in {"auto": (False, True), "on": (True,), "off": (False,)}[option]:
        for size in sizes:
            gib = estimate_gib(
                shape,
                tokens=max(size, longest),
                precision=precision,
                full=is_full(recipe.tuning),
                checkpointing=checkpointing,
            )
            chosen = Batching(size, checkpointing, gib)
            if gib <= free:
                return chosen
    assert chosen is not None
    return chosen


def free_gib(recipe: Recipe, device: torch.device) -> float:
    """Measure the memory the run may use, in GiB, what it holds already included."""
    import psutil
    import torch

    if recipe.compute.memory_gib is not None:
        return recipe.compute.memory_gib
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device)
        return (torch.cuda.mem_get_info(device)[0] + held) / GIB
    return memory_gib() + psutil.Process().memory_info().rss / GIB


def checkpoint_bytes(num_weights: int, num_trained: int, *, full: bool) -> int:
    """Estimate the size of one checkpoint: weights that are saved, and the optimizer's memory."""
    saved = num_weights if full else num_trained
    return 4 * saved + ADAM_BYTES * num_trained + 1_000_000


def check_disk(run: Run, roles: Roles, recipe: Recipe) -> None:
    """Refuse to start where the checkpoints would not fit.

    Raises:
        RunError: naming the folder, what is needed and what is free.
    """
    one = checkpoint_bytes(
        sum(parameter.numel() for parameter in roles.policy.parameters()),
        num_trainable(roles.policy),
        full=is_full(recipe.tuning),
    )
    there = sum(path.stat().st_size for path in run.checkpoints.rglob("*") if path.is_file())
    needed = max(one * (recipe.run.keep_checkpoints + 3) - there, 2 * one)
    free = disk_free(run.path)
    if needed > free:
        raise RunError(
            f"the checkpoints need {needed:,} bytes, {free:,} are free",
            hint="free some space, lower run.keep_checkpoints, or set TUNESMITH_RUNS to a larger "
            "disk",
            where=str(run.path),
        )


def estimate_seconds(
    shape: Shape, *, tokens: int, steps: int, full: bool, precision: Precision, device: torch.device
) -> float:
    """Estimate the time for learning from `tokens` tokens, from a product timed just now."""
    gradient_work = 6 if full else 4
    work = tokens * shape.num_weights * gradient_work
    rate = product_rate(device, precision)
    return work / (rate * EFFICIENCY) + steps * STEP_SECONDS


def product_rate(device: torch.device, precision: Precision) -> float:
    """Time a matrix product of a usual size: floating-point operations a second."""
    import torch

    size = 1024
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    left = torch.randn(size, size, device=device, dtype=dtype)
    torch.mm(left, left)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(left, left).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
