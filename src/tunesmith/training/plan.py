"""What a run would do, found out without doing it."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.hardware import choose_device, choose_precision
from tunesmith.methods.online import OnlineMethod
from tunesmith.models.tuning import is_full
from tunesmith.recipe.options import Recipe
from tunesmith.training.fit import (
    Checkpointing,
    cheapest_change,
    choose_batching,
    footprint_of,
)
from tunesmith.training.memory import checkpoint_bytes, estimate_seconds
from tunesmith.training.order import build_order, count_steps
from tunesmith.training.prepare import Prepared, num_answer_tokens, prepare_run


@dataclass(frozen=True)
class Plan:
    """Counts and estimates of a run that has not started.

    Attributes:
        learned_share: share of the tokens that are learned, 0 to 1.
        memory_gib: estimated peak of a process; free_gib is what there is for it.
        change: what would make it fit; empty if it fits.
        seconds: estimated time of training alone, without what is written to be learned from.
        answers: answers that are written to each row and learned from; 0 if rows hold their own.
    """

    rows: int
    reported_rows: int
    cut_rows: int
    validation_rows: int
    tokens: int
    longest_row: int
    learned_share: float
    num_weights: int
    num_trained: int
    device: str
    precision: str
    checkpointing: Checkpointing
    tokens_per_batch: int
    processes: int
    epochs: float
    steps: int
    memory_gib: float
    free_gib: float
    change: str
    disk_gib: float
    seconds: float
    answers: int


def dry_run(recipe: Recipe) -> Plan:
    """Do everything up to the first step, without loading a weight, and stop."""
    return make_plan(prepare_run(recipe))


def make_plan(prepared: Prepared) -> Plan:
    """Count and estimate from prepared data and the shape of the model."""
    recipe, splits = prepared.recipe, prepared.splits
    device = choose_device(recipe.compute.device)
    precision = choose_precision(recipe.compute.precision, device)
    footprint = footprint_of(prepared)
    full = is_full(recipe.tuning)
    order = build_order(recipe, splits.train)
    steps = count_steps(recipe, order)
    epochs = steps / len(order)
    batching = choose_batching(prepared, footprint)
    report, method = splits.report, prepared.method
    answers, learned = 0, splits.train.num_tokens * epochs
    if isinstance(method, OnlineMethod):  # as if every answer were as long as it may be
        answers = method.writing.group_size
        written = len(splits.train) * num_answer_tokens(method)
        learned = (splits.train.num_tokens + written) * answers * epochs * method.writing.iterations
    return Plan(
        rows=len(splits.train),
        reported_rows=report.num_reported,
        cut_rows=report.num_cut,
        validation_rows=len(splits.validation) if splits.validation is not None else 0,
        tokens=splits.train.num_tokens,
        longest_row=splits.train.reach + num_answer_tokens(method),
        learned_share=splits.train.num_learned / max(splits.train.num_tokens, 1),
        num_weights=footprint.num_weights,
        num_trained=footprint.num_trained,
        device=device.type,
        precision=precision,
        checkpointing=batching.checkpointing,
        tokens_per_batch=batching.tokens,
        processes=batching.processes,
        epochs=round(epochs, 2),
        steps=steps,
        memory_gib=round(batching.gib, 2),
        free_gib=round(batching.free_gib, 2),
        change="" if batching.fits else cheapest_change(prepared, footprint, batching.free_gib),
        disk_gib=round(
            checkpoint_bytes(
                footprint.num_weights if full else footprint.num_trained, footprint.optimizer
            )
            * (recipe.run.keep_checkpoints + 1)
            / 1024**3,
            3,
        ),
        seconds=round(
            estimate_seconds(
                footprint,
                tokens=int(learned / batching.processes),
                steps=steps,
                full=full,
                precision=precision,
                device=device,
            ),
            1,
        ),
        answers=answers,
    )
