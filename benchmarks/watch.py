"""Time a training from inside: what every contender is measured with."""

from __future__ import annotations

import json
import resource
import time
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback


class StepTimes(TrainerCallback):
    """Write down processor time, wall time and loss at the end of each update.

    The tokens of an update follow from the rows, which are the same for every contender.
    """

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.losses: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        """Note the update."""
        self.steps.append(
            {"cpu": time.process_time(), "wall": time.time(), "loss": sum(self.losses)}
        )
        self.losses.clear()

    def write(self, path: Path, started: float) -> None:
        """Write what was measured.

        Args:
            started: wall time at which the command was given.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"started": started, "steps": self.steps, "peak_bytes": peak}
        path.write_text(json.dumps(found), "utf-8")


def watch() -> StepTimes:
    """Watch whatever Trainer is made from now on in this process."""
    times = StepTimes()
    make, step = Trainer.__init__, Trainer.training_step

    def make_watched(self: Trainer, *given: Any, **options: Any) -> None:
        make(self, *given, **options)
        self.add_callback(times)

    def watched_step(self: Trainer, *given: Any, **options: Any) -> Any:
        loss = step(self, *given, **options)
        times.losses.append(float(loss))
        return loss

    Trainer.__init__ = make_watched  # type: ignore[method-assign]
    Trainer.training_step = watched_step  # type: ignore[method-assign]
    return times
