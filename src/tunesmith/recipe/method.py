"""What the loss of a run is: one class a method."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.section import NotNegative, Number, Positive, Section


class Pretrain(Section):
    """Learn to continue plain text (next-token loss on every token)."""

    name: Literal["pretrain"] = "pretrain"
    pack: bool = True
    """Join short texts into rows of `data.max_tokens`; otherwise one text is one row."""


class SFT(Section):
    """Imitate the answers (next-token loss on answer tokens only)."""

    name: Literal["sft"] = "sft"
    learn_prompts: bool = False
    """Also learn to predict the prompts."""
    learn_history: bool = True
    """Learn every answer of a conversation; otherwise only the last one."""
    neftune_alpha: NotNegative = 0.0
    """Strength of noise on the embeddings, 0 for none, 5 to 15 usual (arXiv:2310.05914)."""
    label_smoothing: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of each target that all tokens get in equal parts, 0 for none (arXiv:1512.00567)."""


class DPO(Section):
    """Prefer one answer to another (direct preference optimization, arXiv:2305.18290)."""

    name: Literal["dpo"] = "dpo"
    beta: Positive = 0.1
    """How far the model may go from where it began; lower is farther, 0.01 to 0.5 usual."""


Method = Annotated[Pretrain | SFT | DPO, Field(discriminator="name")]
