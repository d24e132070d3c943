"""Turn a recipe into the arguments of transformers' Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError
from tunesmith.hardware import Precision
from tunesmith.logs import logger
from tunesmith.recipe.options import Recipe
from tunesmith.training.order import update_rows
from tunesmith.training.schedule import describe_schedule

if TYPE_CHECKING:
    from transformers import TrainingArguments

log = logger(__name__)


def build_arguments(
    recipe: Recipe,
    folder: Path,
    *,
    num_steps: int,
    precision: Precision,
    checkpointing: bool,
    cpu: bool,
) -> TrainingArguments:
    """Build the arguments; checkpoints go to `folder`.

    Raises:
        RecipeError: if a value of `run.extra` means nothing.
    """
    from transformers import TrainingArguments

    optimizer, run = recipe.optimizer, recipe.run
    ours: dict[str, Any] = {
        "output_dir": str(folder),
        "per_device_train_batch_size": update_rows(recipe),
        "learning_rate": optimizer.learning_rate,
        **describe_schedule(optimizer, num_steps),
        "warmup_steps": optimizer.warmup,
        "weight_decay": optimizer.weight_decay,
        "max_grad_norm": optimizer.max_grad_norm,
        "max_steps": num_steps,
        "seed": run.seed,
        "use_cpu": cpu,
        "bf16": precision == "bf16",
        "fp16": precision == "fp16",
        "activation_checkpointing": checkpointing,
        "dataloader_num_workers": recipe.data.workers,
        "dataloader_pin_memory": not cpu,
        "logging_strategy": "no",
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "remove_unused_columns": False,
    }
    try:
        arguments = TrainingArguments(**ours, **run.extra)
    except (TypeError, ValueError) as problem:
        raise RecipeError(
            f"transformers refuses an option: {problem}",
            hint="mend or remove it; its values are described in transformers' TrainingArguments",
            where="run.extra" if run.extra else "compute",
        ) from None
    if arguments.n_gpu > 1:
        log.info("training on one of %d GPUs", arguments.n_gpu)
        arguments._n_gpu = 1  # the loop underneath would cut a sequence of rows in pieces
    return arguments
