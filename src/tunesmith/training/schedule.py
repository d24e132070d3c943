"""How the learning rate rises and falls, in the words of transformers."""

from __future__ import annotations

import math
from typing import Any

from tunesmith.recipe.optimizer import Common, Scheduled

THEIR_NAMES = {"constant": "constant_with_warmup"}


def describe_schedule(options: Common, num_steps: int) -> dict[str, Any]:
    """Name the schedule and its options as TrainingArguments does.

    An optimizer without a schedule keeps its rate after warm-up.
    """
    if not isinstance(options, Scheduled):
        return {"lr_scheduler_type": "constant_with_warmup"}
    warmup = options.warmup if options.warmup >= 1 else options.warmup * num_steps
    left = max(1, num_steps - math.ceil(warmup))
    name = THEIR_NAMES.get(options.scheduler, options.scheduler)
    bent: dict[str, dict[str, Any]] = {
        "warmup_stable_decay": {
            "num_decay_steps": min(left, math.ceil(options.decay * num_steps)),
            "min_lr_ratio": options.min_rate,
        },
        "polynomial": {
            "lr_end": options.min_rate * options.learning_rate,
            "power": options.power,
        },
        "cosine_with_restarts": {"num_cycles": options.cycles},
        "cosine_with_min_lr": {"min_lr_rate": options.min_rate},
    }
    return {"lr_scheduler_type": name, "lr_scheduler_kwargs": bent.get(options.scheduler, {})}
