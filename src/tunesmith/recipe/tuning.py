"""Which weights of the model move: one class a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.section import Count, Number, Positive, Section, WholeNumber


class Full(Section):
    """Train every weight."""

    kind: Literal["full"] = "full"


class Freeze(Section):
    """Train some layers as they are and keep the rest."""

    kind: Literal["freeze"] = "freeze"
    layers: WholeNumber = 2
    """Train the last n layers; a negative number trains the first n."""
    names: tuple[str, ...] = ()
    """Train the parameters whose names contain one of these, instead of counting layers."""
    embeddings: bool = False
    """Also train the embeddings and the head."""


class LoRA(Section):
    """Train small low-rank matrices beside frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    rank: Count = 8
    """Width of the added matrices."""
    alpha: Count | None = None
    """Scale: the product is multiplied by alpha / rank; twice the rank if not given."""
    dropout: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the adapter's inputs dropped in training."""
    lora_plus_ratio: Positive = 1.0
    """Learning rate of the matrices that begin at zero over that of the others; 16 usual
    (LoRA+, arXiv:2402.12354)."""
    targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers to adapt, such as q_proj; `all-linear` takes all but the head."""


Tuning = Annotated[Full | Freeze | LoRA, Field(discriminator="kind")]
