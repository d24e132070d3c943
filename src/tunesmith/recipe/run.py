"""The run itself: its name, length, seed and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from tunesmith.recipe.section import Count, CountOrZero, Positive, Section, WholeNumber


class RunOptions(Section):
    """How long a run lasts, what it is called and what it keeps."""

    name: str = Field(default="run", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    """Last part of the run directory's name: letters, digits, dot, dash, underscore."""
    epochs: Positive | None = None
    """Times every training row is seen; 3 if neither this nor `steps` is given."""
    steps: Count | None = None
    """Updates to make, instead of epochs."""
    seed: WholeNumber = Field(default=42, ge=0, le=2**32 - 1)
    """Seed of the rows' order, of new weights and of dropout."""
    log_every_steps: Count = 1
    """Write the loss each so many steps."""
    save_every_steps: CountOrZero = 0
    """Save a checkpoint each so many steps; 0 saves once an epoch."""
    keep_checkpoints: Count = 3
    """Newest checkpoints kept, besides the best one."""
    publish_to: Path | None = None
    """A folder that gets the trained model too, beside the run's own `model/`; its weights are
    links where the disk allows, so that they take no room twice."""
    compatible_outputs: bool = False
    """Also write the figures as LLaMA-Factory does, into the run and `publish_to`:
    trainer_log.jsonl, trainer_state.json, train_results.json, eval_results.json,
    all_results.json, training_loss.png."""
    extra: dict[str, Any] = Field(default={})
    """Rare options of transformers' TrainingArguments, by their names there: `tf32`,
    `full_determinism`, `torch_empty_cache_steps`."""
