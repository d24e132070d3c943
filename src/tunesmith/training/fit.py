"""Settle before a weight is loaded how an update is computed, or that it cannot be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from tunesmith.errors import RecipeError, RunError
from tunesmith.hardware import choose_device, choose_precision
from tunesmith.methods.batches import split_update
from tunesmith.methods.online import OnlineMethod
from tunesmith.models.reader import Reader
from tunesmith.models.tuning import is_full
from tunesmith.recipe.optimizer import AdamW
from tunesmith.recipe.options import Recipe
from tunesmith.recipe.tuning import LoRA
from tunesmith.training.memory import free_gib
from tunesmith.training.order import build_order, count_steps, update_rows
from tunesmith.training.prepare import Prepared, longest_row, num_answer_tokens
from tunesmith.training.processes import num_processes
from tunesmith.training.updates import deal

if TYPE_CHECKING:
    from tunesmith.training.footprint import Footprint

Checkpointing = Literal["off", "on", "offload"]
BATCH_TOKENS = {"cpu": 2048, "cuda": 16384}
"""Tokens of a batch beyond which nothing gets faster."""
COMPILED_BATCH_TOKENS = 4096
"""The same in 16 bits on a CPU, where products are compiled for each new size: fewer are better."""
LEANER_BATCH, WORTH_IT = 768, 0.8
"""A smaller batch for the CPU, up to a tenth slower: taken where it saves a fifth of the memory."""
SMALLEST_BATCH, SHORTEST_ROW = 512, 64
LOOKED_AHEAD = 10_000_000
"""Rows that are looked at for the largest batch; where there are more, any may be as large."""
LOOKED_AT = 8
"""Updates that are split to see the largest batch of all."""


@dataclass(frozen=True)
class Batching:
    """How an update is computed; changes speed and memory only.

    Attributes:
        tokens: most tokens of a batch, padding included; a longer row is a batch of its own.
        checkpointing: whether activations are computed twice, and whether from main memory.
        gib: estimated peak memory of a process.
        free_gib: memory that it may use.
        processes: how many there are.
    """

    tokens: int
    checkpointing: Checkpointing
    gib: float
    free_gib: float
    processes: int

    @property
    def fits(self) -> bool:
        """Whether the estimate is within the memory there is."""
        return self.gib <= self.free_gib

    @property
    def who(self) -> str:
        """Name what takes so much memory."""
        return "the run" if self.processes == 1 else f"each of {self.processes} processes"


def fit(prepared: Prepared) -> Prepared:
    """Write into the recipe what depends on the memory that is free now.

    Raises:
        RunError: if no way fits, with the cheapest change that does.
    """
    compute = prepared.recipe.compute
    footprint = footprint_of(prepared)
    batching = choose_batching(prepared, footprint)
    if not batching.fits:
        raise RunError(
            f"{batching.who} needs about {batching.gib:.1f} GiB of memory, "
            f"{batching.free_gib:.1f} are free",
            hint=cheapest_change(prepared, footprint, batching.free_gib),
            where="compute.memory_gib" if compute.memory_gib else "compute",
        )
    settled = compute.model_copy(
        update={
            "processes": batching.processes,
            "tokens_per_batch": batching.tokens,
            "gradient_checkpointing": batching.checkpointing,
        }
    )
    recipe = prepared.recipe.model_copy(update={"compute": settled})
    return replace(prepared, recipe=recipe)


def fit_once(prepared: Prepared) -> Prepared:
    """Settle what is not settled yet: a run goes on as it began."""
    compute = prepared.recipe.compute
    settled = compute.processes and compute.tokens_per_batch
    return prepared if settled and compute.gradient_checkpointing != "auto" else fit(prepared)


def footprint_of(prepared: Prepared) -> Footprint:
    """Measure what the recipe's training takes."""
    from tunesmith.training.footprint import measure_footprint
    from tunesmith.training.towers import find_tower

    recipe, reader = prepared.recipe, prepared.reader
    senses = reader.senses if isinstance(reader, Reader) else None
    tower = find_tower(reader.folder, recipe.tuning, senses, prepared.splits.train)
    return measure_footprint(recipe, reader.folder, longest_row(prepared), tower)


def choose_batching(prepared: Prepared, footprint: Footprint) -> Batching:
    """Choose the fastest way that fits into memory; if none does, the smallest."""
    recipe = prepared.recipe
    device = choose_device(recipe.compute.device)
    processes = num_processes(recipe)
    free = free_gib(recipe, device, processes)
    shared = footprint.shared or not is_paired(prepared)
    largest = _batch_sizes(prepared, processes, flat=footprint.flat and shared)

    def sized(tokens: int, checkpointing: Checkpointing) -> Batching:
        most, split = largest(tokens)
        gib = needed(footprint, most, checkpointing, split=split)
        return Batching(tokens, checkpointing, gib, free, processes)

    exact = choose_precision(recipe.compute.precision, device) == "fp32"
    compiled = device.type == "cpu" and not exact
    most_at_once = COMPILED_BATCH_TOKENS if compiled else BATCH_TOKENS[device.type]
    ways = list(_ways(recipe, most_at_once, longest_row(prepared)))
    chosen = sized(*ways[0])
    for way in ways[1:]:
        if chosen.fits:
            break
        chosen = sized(*way)
    if device.type == "cpu" and exact and not recipe.compute.tokens_per_batch:
        leaner = sized(LEANER_BATCH, chosen.checkpointing)
        return leaner if leaner.gib < WORTH_IT * chosen.gib else chosen
    return chosen


def checkpointings(recipe: Recipe) -> tuple[Checkpointing, ...]:
    """List the ways to remember activations on the run's device, the fastest first."""
    on_gpu = choose_device(recipe.compute.device).type == "cuda"
    return ("off", "on", "offload") if on_gpu else ("off", "on")


def needed(
    footprint: Footprint, tokens: int, checkpointing: Checkpointing, *, split: bool = True
) -> float:
    """Estimate the peak of a way, in GiB."""
    return footprint.gib(
        tokens,
        checkpointing=checkpointing != "off",
        offload=checkpointing == "offload",
        split=split,
    )


def _ways(recipe: Recipe, most_at_once: int, longest: int) -> Iterator[tuple[int, Checkpointing]]:
    """List what may be chosen, the fastest first.

    Raises:
        RecipeError: if what a GPU remembers is to lie in main memory, and there is no GPU.
    """
    option, asked = recipe.compute.gradient_checkpointing, recipe.compute.tokens_per_batch
    if option != "auto" and option not in checkpointings(recipe):
        raise RecipeError(
            "gradient_checkpointing: offload relieves a GPU, and this run computes on the CPU",
            hint="write compute.gradient_checkpointing: on",
            where="compute.gradient_checkpointing",
        )
    for checkpointing in checkpointings(recipe) if option == "auto" else (option,):
        tokens = asked or most_at_once
        yield tokens, checkpointing
        while not asked and tokens > max(longest, SMALLEST_BATCH):
            tokens //= 2
            yield tokens, checkpointing


def _batch_sizes(
    prepared: Prepared, processes: int, *, flat: bool
) -> Callable[[int], tuple[int, bool]]:
    """Learn what the largest batch of a process that will come up depends on.

    Returns:
        tells, given the most tokens of a batch, those of the largest, padding included, and
        whether any update is split into several.
    """
    recipe, rows = prepared.recipe, prepared.splits.train
    order = build_order(recipe, rows)
    steps = count_steps(recipe, order)
    # a batch of other rows' answers may be longer, and how long written ones are nobody knows
    unknown = prepared.method.learn.kind in ("judged", "prompt")
    if unknown or not flat or steps * len(rows) > LOOKED_AHEAD * len(order):
        longest = longest_row(prepared)
        apart = 2 * rows.reach if is_paired(prepared) and not flat else longest  # two padded texts
        whole = apart * _most_rows(prepared, processes)
        return lambda tokens: (max(min(tokens, whole), apart), whole > tokens)
    totals, longest_rows = order.sizes(steps)

    shares = -(-totals // processes)

    def largest(tokens: int) -> tuple[int, bool]:
        parts = -(-shares // tokens)
        most = shares // parts + np.where(parts * processes > 1, longest_rows, 0)
        found = 0
        for step in np.argsort(-most)[:LOOKED_AT]:
            lengths = order.lengths_of(int(step))
            for hand in deal(lengths, processes):
                sizes = [lengths[row] for row in hand]
                for part in split_update(sizes, tokens=tokens, flat=True) if sizes else ():
                    found = max(found, sum(sizes[part]))
        return found, bool((shares > np.maximum(tokens, longest_rows)).any())

    return largest


def _most_rows(prepared: Prepared, processes: int) -> int:
    """Count the rows of an update that may all fall to one process."""
    recipe, method = prepared.recipe, prepared.method
    if recipe.optimizer.update_tokens:
        return len(prepared.splits.train)
    if not isinstance(method, OnlineMethod):
        return update_rows(recipe)
    questions = -(-update_rows(recipe) // processes)
    return -(-questions * method.writing.group_size // method.writing.minibatches)


def is_paired(prepared: Prepared) -> bool:
    """Whether a row holds two answers to a question."""
    return prepared.method.learn.kind == "preference"


def cheapest_change(prepared: Prepared, footprint: Footprint, free: float) -> str:
    """Find the smallest change of the recipe that would fit, and say it."""
    recipe = prepared.recipe
    longest = longest_row(prepared)
    option, every = recipe.compute.gradient_checkpointing, checkpointings(recipe)
    leanest = every[-1] if option == "auto" else option
    if fewer := _fewer_at_once(
        recipe, footprint, lambda leaner: needed(leaner, longest, leanest), free
    ):
        return f"write {fewer}"
    tokens = recipe.compute.tokens_per_batch or 0
    if tokens > longest and needed(footprint, longest, leanest) <= free:
        return f"write compute.tokens_per_batch: {longest}, or leave it out"
    leaner = every[every.index(leanest) + 1 :]
    for way in leaner:
        if needed(footprint, longest, way) <= free:
            return f"write compute.gradient_checkpointing: {way}"
    also = f" and compute.gradient_checkpointing: {leaner[-1]}" if leaner else ""
    if shorter := _shorter_rows(
        prepared, lambda tokens: needed(footprint, tokens, every[-1]), free
    ):
        return f"write {shorter}{also}"
    if is_full(recipe.tuning) and not recipe.model.from_scratch:
        plain = {"tuning": LoRA(), "optimizer": AdamW()}
        adapted = replace(prepared, recipe=recipe.model_copy(update=plain))
        if needed(footprint_of(adapted), SHORTEST_ROW, every[-1]) <= free:
            other = "" if recipe.optimizer.name == "adamw" else " and optimizer.name: adamw"
            return f"write tuning.kind: lora{other}"
    more = "raise compute.memory_gib" if recipe.compute.memory_gib else "add memory to the machine"
    return f"take a smaller model, or {more}"


def _fewer_at_once(
    recipe: Recipe, footprint: Footprint, gib: Callable[[Footprint], float], free: float
) -> str:
    """Say which option would let fewer processes work, or fewer answers be written, at a time."""
    if fewer := fewer_processes(recipe, gib(footprint), free):
        return f"compute.processes: {fewer}"
    rows = 0 if gib(footprint) <= free else footprint.rollout.rows
    while (rows := rows // 2) >= 1:
        if gib(replace(footprint, rollout=footprint.rollout.with_rows(rows))) <= free:
            return f"method.rollout_rows: {rows}"
    return ""


def _shorter_rows(prepared: Prepared, gib: Callable[[int], float], free: float) -> str:
    """Say which option would make the rows short enough; nothing if only very short ones would."""
    longest, texts = longest_row(prepared), 2 if is_paired(prepared) else 1
    written = num_answer_tokens(prepared.method)
    shorter = 1 << (max(written or prepared.splits.train.reach, 2) - 1).bit_length() - 1
    while shorter >= (1 if written else SHORTEST_ROW):
        if gib(longest - written + shorter if written else min(texts * shorter, longest)) <= free:
            return f"{'method.answer_tokens' if written else 'data.max_tokens'}: {shorter}"
        shorter //= 2
    return ""


def fewer_processes(recipe: Recipe, gib: float, free: float) -> int:
    """Count the processes that would fit into the memory of all; 0 if that helps nobody.

    Args:
        gib: what one takes; free is what there is for each.
    """
    processes = num_processes(recipe)
    on_gpus = choose_device(recipe.compute.device).type == "cuda"  # each has its own memory
    fitting = 0 if on_gpus else int(free * processes / gib)
    return fitting if fitting < processes else 0
