"""How weights move."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from tunesmith.recipe.section import Count, CountOrZero, NotNegative, Number, Positive, Section


class Optimizer(Section):
    """How weights move (AdamW, Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    learning_rate: Positive = 2e-4
    """Peak learning rate, after warm-up; 1e-4 to 5e-4 usual for LoRA, 1e-5 for full tuning; for
    preferences 5e-5 and 5e-6."""
    batch_size: Count = 8
    """Rows of an update, times `accumulation`. How many of them are computed at once is
    `compute.tokens_per_batch`."""
    accumulation: Count = 1
    """An update learns from batch_size x accumulation rows."""
    update_tokens: Count | None = None
    """Tokens of an update, as nearly as whole rows allow, instead of batch_size x accumulation."""
    scheduler: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after warm-up."""
    warmup: NotNegative = 0.03
    """Steps over which the learning rate rises: a share of all steps below 1, else a count."""
    weight_decay: NotNegative = 0.0
    """Pull of the weights towards zero."""
    max_grad_norm: NotNegative = 1.0
    """Gradients longer than this are shortened to it; 0 leaves them as they are."""
    beta1: Number = Field(default=0.9, ge=0.0, lt=1.0)
    """Memory of the gradient's mean."""
    beta2: Number = Field(default=0.999, ge=0.0, lt=1.0)
    """Memory of the gradient's square."""
    early_stopping: CountOrZero = 0
    """Stop after so many evaluations without a better held-out loss; 0 never stops early."""
