"""How a run is watched while it learns and measured at its end."""

from __future__ import annotations

from tunesmith.recipe.section import Count, CountOrZero, Section


class Evaluate(Section):
    """Held-out loss during training and sample answers before and after."""

    every_steps: CountOrZero = 0
    """Measure the held-out loss each so many steps; 0 measures once an epoch."""
    best_on: str | None = None
    """Name of the held-out set whose loss says which weights are best; all of them without one."""
    batch_size: Count = 8
    """Rows of one batch of the held-out set."""
    sample_rows: CountOrZero = 3
    """Questions answered before and after training for the report; 0 for none."""
    sample_tokens: Count = 64
    """Longest sample answer."""

    @property
    def watched(self) -> str:
        """The measure whose lowest value is the best."""
        return f"eval_{self.best_on}_loss" if self.best_on else "eval_loss"
