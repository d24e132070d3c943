"""Time a training from inside: what every contender is measured with."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainerCallback

MEASURED = 2
"""Updates measured at least, after those left out."""


class StepTimes(TrainerCallback):
    """Write down processor time, wall time and loss at the end of each update.

    The tokens of an update follow from the rows, which are the same for every contender.

    Args:
        spec: how the contender is run; `seconds` ends it early, once so long after the updates
            that are left out.
    """

    def __init__(self, spec: dict[str, Any]) -> None:
        began = time.time()
        if "turn" in spec:
            take_turn(spec["turn"])
        self.waited = time.time() - began
        self.cuda = spec["device"] == "cuda"
        self.left_out, self.seconds = spec.get("left_out", 1), spec.get("seconds", float("inf"))
        self.steps: list[dict[str, float]] = []
        self.losses: list[torch.Tensor] = []
        self.noted: dict[str, float] = {}

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Note the update."""
        if self.cuda:
            torch.cuda.synchronize()
        now = {"cpu": time.process_time(), "wall": time.time()}
        self.steps.append({**now, "loss": float(sum(loss.double() for loss in self.losses))})
        self.losses.clear()
        measured = self.steps[self.left_out - 1 :]
        if len(measured) > MEASURED and now["wall"] - measured[0]["wall"] > self.seconds:
            control.should_training_stop = True

    def write(self, path: Path, started: float) -> None:
        """Write what was measured.

        Args:
            started: wall time at which the command was given.
        """
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        found = {"started": started + self.waited, "steps": self.steps, "peak_bytes": peak}
        found |= self.noted
        if self.cuda:
            found["peak_gpu_bytes"] = torch.cuda.max_memory_allocated()
            found["peak_gpu_reserved_bytes"] = torch.cuda.max_memory_reserved()
        path.write_text(json.dumps(found), "utf-8")


def watch(spec: dict[str, Any]) -> StepTimes:
    """Wait for this process's turn, and watch whatever Trainer is made from now on in it."""
    times = StepTimes(spec)
    make, step = Trainer.__init__, Trainer.training_step

    def make_watched(self: Trainer, *given: Any, **options: Any) -> None:
        make(self, *given, **options)
        self.add_callback(times)

    def watched_step(self: Trainer, *given: Any, **options: Any) -> Any:
        loss = step(self, *given, **options)
        times.losses.append(loss.detach())  # read at the update's end: a GPU is not waited for
        return loss

    Trainer.__init__ = make_watched  # type: ignore[method-assign]
    Trainer.training_step = watched_step  # type: ignore[method-assign]
    return times


def take_turn(lock: str) -> None:
    """Wait for a lock, and hold it until the process ends.

    The next contender imports its libraries while one trains, and touches the GPU only then.
    """
    fcntl.flock(os.open(lock, os.O_RDWR | os.O_CREAT), fcntl.LOCK_EX)
