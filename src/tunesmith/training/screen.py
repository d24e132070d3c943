"""Show a run while it learns: a progress bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from tunesmith.logs import console, logger
from tunesmith.training.best import named_losses

log = logger(__name__)
SECONDS_BETWEEN_LINES = 10.0


class Screen:
    """One run's line on the screen."""

    def __init__(self) -> None:
        self.progress = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[news]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=None, news="")
        self.held_out = ""
        self.num_steps = 0
        self.last_line = 0.0

    def begin(self, step: int, num_steps: int) -> None:
        """Start the bar at `step` of `num_steps`."""
        self.num_steps = num_steps
        self.progress.update(self.task, completed=step, total=num_steps)
        self.progress.start()

    def update(self, record: dict[str, Any]) -> None:
        """Show what was just measured."""
        if "eval_loss" in record:
            sets = [f"{name} {record[key]:.4f}" for key, name in named_losses(record).items()]
            each = f" ({', '.join(sets)})" if sets else ""
            self.held_out = f"  held-out {record['eval_loss']:.4f}{each}"
        if "eval_reward" in record:
            self.held_out = f"  held-out reward {record['eval_reward']:.3f}"
        news = ""
        if "loss" in record:
            learned = f"loss {record['loss']:.4f}"
            if "reward" in record:  # the loss of what was written just now is next to nothing
                learned = f"reward {record['reward']:.3f}"
            news = f"{learned}{self.held_out}"
            news += f"  {record['tokens_per_second']:,.0f} tokens/s"
            self.progress.update(self.task, completed=record["step"], news=news)
        self._line(record["step"], news or self.held_out.strip())

    def end(self) -> None:
        """Leave the screen as it is and give it back."""
        self.progress.stop()

    def _line(self, step: int, news: str) -> None:
        now = time.monotonic()
        is_last = step >= self.num_steps
        if now - self.last_line < SECONDS_BETWEEN_LINES and not is_last:
            return
        self.last_line = now
        log.info("step %d of %d: %s", step, self.num_steps, news, extra={"has_bar": True})
