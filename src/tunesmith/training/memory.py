"""Estimate what a run needs before it starts: memory, disk and time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tunesmith.errors import RunError
from tunesmith.hardware import GIB, Precision, disk_free, memory_gib
from tunesmith.models.autocast import number_type
from tunesmith.models.roles import Roles
from tunesmith.models.tuning import num_saved
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.training.optimizers.memory import Memory, count_memory
from tunesmith.training.optimizers.weights import list_weights

if TYPE_CHECKING:
    import torch

    from tunesmith.training.footprint import Footprint

EFFICIENCY = 0.5
"""Share of the plain matrix product's rate that a whole step reaches."""
STEP_SECONDS = 0.03
"""What an update costs besides its products, however small it is."""


def free_gib(recipe: Recipe, device: torch.device, processes: int = 1) -> float:
    """Measure the memory a process of the run may use, in GiB, what it holds already included."""
    import psutil
    import torch

    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device)
        free = torch.cuda.mem_get_info(device)[0]  # to look at other GPUs takes room on them
        return recipe.compute.memory_gib or (free + held) / GIB
    if recipe.compute.memory_gib is not None:
        return recipe.compute.memory_gib / processes
    if processes > 1:  # this one only waits for them
        return memory_gib() / processes
    return memory_gib() + psutil.Process().memory_info().rss / GIB


def checkpoint_bytes(numbers: int, optimizer: Memory) -> int:
    """Estimate the size of one checkpoint: weights that are saved, and the optimizer's memory."""
    return 4 * numbers + optimizer.saved + 1_000_000


def check_disk(run: Run, roles: Roles, recipe: Recipe) -> None:
    """Refuse to start where the checkpoints would not fit.

    Raises:
        RunError: naming the folder, what is needed and what is free.
    """
    width = 2 if roles.precision == "pure_bf16" else 4
    trained = list_weights(roles.policy, recipe)
    one = checkpoint_bytes(num_saved(roles.policy), count_memory(recipe, trained, width))
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
    footprint: Footprint,
    *,
    tokens: int,
    steps: int,
    full: bool,
    precision: Precision,
    device: torch.device,
) -> float:
    """Estimate how long a process learns from `tokens` tokens, from a product timed just now."""
    gradient_work = 6 if full else 4
    work = tokens * footprint.num_weights * gradient_work
    rate = product_rate(device, precision)
    return work / (rate * EFFICIENCY) + steps * STEP_SECONDS


def product_rate(device: torch.device, precision: Precision) -> float:
    """Time a matrix product of a usual size: floating-point operations a second."""
    import torch

    size = 1024
    left = torch.randn(size, size, device=device, dtype=number_type(precision))
    torch.mm(left, left)
    best = float("inf")
    for _ in range(3):
        started = time.perf_counter()
        torch.mm(left, left).sum().item()
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best
