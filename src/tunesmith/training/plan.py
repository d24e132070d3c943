"""What a run would do, found out without doing it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.hardware import choose_device, choose_precision
from tunesmith.models.load import load_config
from tunesmith.models.tuning import apply_tuning, is_full, num_trainable
from tunesmith.recipe.options import Recipe
from tunesmith.training.memory import (
    checkpoint_bytes,
    choose_batching,
    estimate_seconds,
    free_gib,
    shape_of,
)
from tunesmith.training.order import build_order, count_steps
from tunesmith.training.prepare import Prepared, prepare_run

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Plan:
    """Counts and estimates of a run that has not started.

    Attributes:
        learned_share: share of the tokens that are learned, 0 to 1.
        memory_gib: estimated peak; free_gib is what there is.
        seconds: estimated time of training alone.
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
    checkpointing: bool
    tokens_per_batch: int
    epochs: float
    steps: int
    memory_gib: float
    free_gib: float
    disk_gib: float
    seconds: float


def dry_run(recipe: Recipe) -> Plan:
    """Do everything up to the first step, without loading a weight, and stop."""
    return make_plan(prepare_run(recipe))


def make_plan(prepared: Prepared) -> Plan:
    """Count and estimate from prepared data and the shape of the model."""
    recipe, splits = prepared.recipe, prepared.splits
    device = choose_device(recipe.compute.device)
    precision = choose_precision(recipe.compute.precision, device)
    model = _shapes_only(prepared)
    shape = shape_of(model, num_trainable(model))
    full = is_full(recipe.tuning)
    order = build_order(recipe, splits.train)
    steps = count_steps(recipe, order)
    epochs = steps / len(order)
    batching = choose_batching(
        shape, recipe, splits.train.lengths, precision=precision, device=device
    )
    report = splits.report
    return Plan(
        rows=len(splits.train),
        reported_rows=report.num_reported,
        cut_rows=report.num_cut,
        validation_rows=len(splits.validation) if splits.validation is not None else 0,
        tokens=splits.train.num_tokens,
        longest_row=int(splits.train.lengths.max()),
        learned_share=splits.train.num_learned / max(splits.train.num_tokens, 1),
        num_weights=shape.num_weights,
        num_trained=shape.num_trained,
        device=device.type,
        precision=precision,
        checkpointing=batching.checkpointing,
        tokens_per_batch=batching.tokens,
        epochs=round(epochs, 2),
        steps=steps,
        memory_gib=round(batching.gib, 2),
        free_gib=round(free_gib(recipe, device), 2),
        disk_gib=round(
            checkpoint_bytes(shape.num_weights, shape.num_trained, full=full)
            * (recipe.run.keep_checkpoints + 1)
            / 1024**3,
            3,
        ),
        seconds=round(
            estimate_seconds(
                shape,
                tokens=int(splits.train.num_tokens * epochs),
                steps=steps,
                full=full,
                precision=precision,
                device=device,
            ),
            1,
        ),
    )


def _shapes_only(prepared: Prepared) -> torch.nn.Module:
    """Build the tuned model without its numbers."""
    import torch
    from transformers import AutoModelForCausalLM

    config = load_config(prepared.reader.folder)
    with torch.device("meta"):
        return apply_tuning(AutoModelForCausalLM.from_config(config), prepared.recipe.tuning)
