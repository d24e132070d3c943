"""How a run is watched while it learns and measured at its end."""

from __future__ import annotations

from tunesmith.recipe.section import Count, CountOrZero, Section


class Evaluate(Section):
    """Held-out loss during training and sample answers before and after."""

    every_steps: CountOrZero = 0
    """Measure the held-out loss each so many steps; 0 measures once an epoch."""
    batch_size: Count = 8
    """Rows of one batch of the held-out set."""
    sample_rows: CountOrZero = 3
    """Questions answered before and after training for the report; 0 for none."""
    sample_tokens: Count = 64
    """Longest sample answer."""
