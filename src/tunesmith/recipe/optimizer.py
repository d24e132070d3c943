"""How weights move: one class an optimizer."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.section import Count, CountOrZero, NotNegative, Number, Positive, Section


class Common(Section):
    """What every optimizer is told."""

    name: str
    learning_rate: Positive = 2e-4
    """Peak learning rate, after warm-up; 1e-4 to 5e-4 usual for LoRA, 1e-5 for full tuning. Methods
    that learn from preferences or rewards take 5e-5, or 5e-6 where whole weights move, and a reward
    model twice as much, unless told otherwise."""
    batch_size: Count = 8
    """Rows of an update, times `accumulation`. How many of them are computed at once is
    `compute.tokens_per_batch`."""
    accumulation: Count = 1
    """An update learns from batch_size x accumulation rows."""
    update_tokens: Count | None = None
    """Tokens of an update, as nearly as whole rows allow, instead of batch_size x accumulation."""
    warmup: NotNegative = 0.03
    """Steps over which the learning rate rises: a share of all steps below 1, else a count."""
    weight_decay: NotNegative = 0.0
    """Pull of the weights towards zero."""
    max_grad_norm: NotNegative = 1.0
    """Gradients longer than this are shortened to it; 0 leaves them as they are."""
    layer_decay: Number = Field(default=1.0, gt=0.0, le=1.0)
    """Share of the learning rate that the layer below another gets, and so on down to the
    embeddings; 1 gives all layers the same. For full and freeze tuning."""
    early_stopping: CountOrZero = 0
    """Stop after so many evaluations without a better held-out loss; 0 never stops early."""


class Scheduled(Common):
    """An optimizer whose learning rate follows a schedule."""

    scheduler: Literal[
        "cosine",
        "linear",
        "constant",
        "warmup_stable_decay",
        "inverse_sqrt",
        "polynomial",
        "cosine_with_restarts",
        "cosine_with_min_lr",
    ] = "cosine"
    """How the learning rate falls after warm-up."""
    min_rate: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the peak at which the learning rate ends; for warmup_stable_decay, polynomial and
    cosine_with_min_lr."""
    decay: Number = Field(default=0.1, gt=0.0, lt=1.0)
    """Share of all steps over which warmup_stable_decay falls at the end."""
    power: Positive = 1.0
    """Bend of polynomial: 1 is a straight line, 2 falls early."""
    cycles: Count = 2
    """How often cosine_with_restarts begins at the peak."""


class Adaptive(Scheduled):
    """An optimizer that scales every step by what gradients were before."""

    beta1: Number = Field(default=0.9, ge=0.0, lt=1.0)
    """Memory of the gradient's mean."""
    beta2: Number = Field(default=0.999, ge=0.0, lt=1.0)
    """Memory of the gradient's square."""
    eps: Positive = 1e-8
    """Keeps the step finite where gradients are tiny."""


class AdamW(Adaptive):
    """Two numbers of memory a weight (Loshchilov & Hutter 2019, arXiv:1711.05101)."""

    name: Literal["adamw"] = "adamw"


class AdamW8bit(Adaptive):
    """AdamW that remembers in 8 bits (Dettmers et al. 2022, arXiv:2110.02861)."""

    name: Literal["adamw_8bit"] = "adamw_8bit"


class AdamWPaged8bit(Adaptive):
    """The same, its memory moved to the processor's where a GPU runs out (arXiv:2305.14314)."""

    name: Literal["adamw_paged_8bit"] = "adamw_paged_8bit"


class Signs(Scheduled):
    """An optimizer that steps by the sign of its memory."""

    beta1: Number = Field(default=0.9, ge=0.0, lt=1.0)
    """Share of the gradients before in the direction of a step."""
    beta2: Number = Field(default=0.99, ge=0.0, lt=1.0)
    """Memory of the gradient's mean."""


class Lion(Signs):
    """One number of memory a weight; a third of AdamW's rate is usual (arXiv:2302.06675)."""

    name: Literal["lion"] = "lion"


class Lion8bit(Signs):
    """Lion that remembers in 8 bits."""

    name: Literal["lion_8bit"] = "lion_8bit"


class Layerwise(Scheduled):
    """An optimizer with so little memory that gradients are most of it."""

    layerwise: bool = False
    """Move each weight as soon as its gradient is known, and free the gradient (arXiv:2306.09782);
    needs max_grad_norm: 0."""


class Adafactor(Layerwise):
    """Remembers a row and a column for each matrix (Shazeer & Stern 2018, arXiv:1804.04235)."""

    name: Literal["adafactor"] = "adafactor"


class SGD(Layerwise):
    """The plain gradient; with `layerwise` this is LOMO (arXiv:2306.09782)."""

    name: Literal["sgd"] = "sgd"
    momentum: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the last step that goes on; above 0 it costs one number of memory a weight."""


class Muon(Adaptive):
    """Equal steps in all directions of hidden matrices, AdamW for the rest (arXiv:2502.16982)."""

    name: Literal["muon"] = "muon"
    momentum: Number = Field(default=0.95, ge=0.0, lt=1.0)
    """Share of the last gradients that goes on, in hidden matrices."""


class LowRank(Adaptive, Layerwise):
    """AdamW that remembers a projection of each hidden matrix's gradient."""

    project_every_steps: Count = 200
    """Choose a new projection each so many steps."""


class GaLore(LowRank):
    """AdamW in the gradient's strongest directions (Zhao et al. 2024, arXiv:2403.03507)."""

    name: Literal["galore"] = "galore"
    rank: Count = 128
    """Directions that are kept of each hidden matrix."""
    scale: Positive = 0.25
    """Factor of the step in hidden matrices."""


class Apollo(LowRank):
    """The gradient, as long as AdamW on a random projection says (arXiv:2412.05270)."""

    name: Literal["apollo"] = "apollo"
    rank: Count = 128
    """Directions that are kept of each hidden matrix."""
    scale: Positive = 1.0
    """Factor of the step in hidden matrices."""


class ApolloMini(LowRank):
    """APOLLO with one direction, and one length for each matrix."""

    name: Literal["apollo_mini"] = "apollo_mini"
    scale: Positive = 11.3
    """Factor of the step in hidden matrices."""


class AdamMini(Adaptive):
    """AdamW with one rate for each head, neuron or token (Zhang et al. 2024, arXiv:2406.16793)."""

    name: Literal["adam_mini"] = "adam_mini"


class ScheduleFree(Common):
    """AdamW that averages its weights instead of slowing down (arXiv:2405.15682)."""

    name: Literal["schedule_free"] = "schedule_free"
    beta1: Number = Field(default=0.9, gt=0.0, lt=1.0)
    """How near to the average gradients are taken."""
    beta2: Number = Field(default=0.999, ge=0.0, lt=1.0)
    """Memory of the gradient's square."""
    eps: Positive = 1e-8
    """Keeps the step finite where gradients are tiny."""


class BAdam(Adaptive):
    """AdamW on one layer after another (Luo et al. 2024, arXiv:2404.02827)."""

    name: Literal["badam"] = "badam"
    switch_every_steps: Count = 50
    """Go on to the next layer, from the lowest to the last and again, each so many steps."""


Optimizer = Annotated[
    AdamW
    | AdamW8bit
    | AdamWPaged8bit
    | Lion
    | Lion8bit
    | Adafactor
    | SGD
    | Muon
    | GaLore
    | Apollo
    | ApolloMini
    | AdamMini
    | ScheduleFree
    | BAdam,
    Field(discriminator="name"),
]
