"""Watch a run step by step: log, measure, save, stop, and notice numbers that are none."""

from __future__ import annotations

import time
from typing import Any

import psutil
from transformers import TrainerCallback

from tunesmith.logs import logger
from tunesmith.recipe.options import Recipe
from tunesmith.runs.run import Run
from tunesmith.training.best import best_step, held_out_figure, stopped_early
from tunesmith.training.screen import Screen
from tunesmith.training.trainer import RunTrainer

log = logger(__name__)


class Watch(TrainerCallback):
    """Decide at each step's end what is due, and write down what was measured."""

    def __init__(self, recipe: Recipe, run: Run, trainer: RunTrainer, screen: Screen) -> None:
        self.recipe, self.run, self.trainer, self.screen = recipe, run, trainer, screen
        per_epoch = len(trainer.order)
        self.save_every = recipe.run.save_every_steps or per_epoch
        self.started = self.logged_at = time.perf_counter()
        self.tokens = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Ask the loop for what is due now."""
        step, last = state.global_step, state.global_step >= state.max_steps
        stopping = self.trainer.ranks.any(self.trainer.stop.is_asked())
        measure = self.trainer.is_evaluation_due(step)
        control.should_evaluate = measure and not stopping  # made up for when the run goes on
        control.should_save = last or stopping or step % self.save_every == 0
        due = step % self.recipe.run.log_every_steps == 0
        control.should_log = due or measure or control.should_save  # a resume logs the same
        if stopping:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
        """Append what was measured to metrics.jsonl and show it."""
        logs: dict[str, float] = rest["logs"]
        measured = "loss" in logs or held_out_figure(logs) is not None
        if not measured or not self.trainer.ranks.is_first:
            return
        record: dict[str, Any] = {"step": state.global_step, **logs}
        if "loss" in logs:
            record |= self._speed()
            self.run.write_status(step=state.global_step)
        self.run.append_metrics(record)
        self.screen.update(record)

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Keep the best weights; stop early once they have been the best for long enough."""
        best = best_step(state.log_history, self.recipe.evaluate.watched)
        if best == state.global_step:
            control.should_save = True
        if stopped_early(self.recipe, state.log_history):
            log.info("nothing better on held-out rows since step %d: stopping early", best)
            control.should_save = True
            control.should_training_stop = True

    def _speed(self) -> dict[str, float]:
        now = time.perf_counter()
        tokens = self.trainer.tokens_seen - self.tokens
        elapsed = max(now - self.logged_at, 1e-9)
        self.tokens, self.logged_at = self.trainer.tokens_seen, now
        return {
            "tokens_per_second": round(tokens / elapsed, 1),
            "seconds": round(now - self.started, 3),
            "memory_gib": round(psutil.Process().memory_info().rss / 1024**3, 3),
        }
