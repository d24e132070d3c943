"""Which weights of the model move: one class a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.section import Count, Number, Positive, Section, WholeNumber

Init = Literal["default", "orthogonal", "pissa", "pissa_niter", "olora", "eva", "loftq"]
RESIDUAL: tuple[Init, ...] = ("pissa", "pissa_niter", "olora")
"""Ways to begin that take from the frozen weights what the matrices begin with."""
TAKING: tuple[Init, ...] = (*RESIDUAL, "loftq")
"""Ways to begin after which the frozen weights alone are not the base any more."""


Part = Literal["language", "projector", "tower"]


class Parted(Section):
    """What all kinds share of models that see or hear."""

    parts: tuple[Part, ...] = Field(default=("language",), min_length=1)
    """Of a model that sees or hears, what learns: its `language` model, the `projector` that
    what it sees goes through, the `tower` that sees or hears."""


class Full(Parted):
    """Train every weight."""

    kind: Literal["full"] = "full"


class Freeze(Parted):
    """Train some layers as they are and keep the rest."""

    kind: Literal["freeze"] = "freeze"
    layers: WholeNumber = 2
    """Train the last n layers; a negative number trains the first n."""
    names: tuple[str, ...] = ()
    """Train the parameters whose names contain one of these, instead of counting layers."""
    spread: bool = False
    """Train n layers evenly between the others instead, each the last of its stretch: the new
    blocks of a model that was made with `llama_pro` by others."""
    embeddings: bool = False
    """Also train the embeddings and the head."""


class LlamaPro(Section):
    """Train new layers between the others that at first change nothing (arXiv:2401.02415)."""

    kind: Literal["llama_pro"] = "llama_pro"
    blocks: Count = 2
    """New layers, put evenly between the others; each begins as a copy of the one before it."""


class Adapter(Parted):
    """What all kinds share that train something beside frozen weights."""

    targets: tuple[str, ...] = ("all-linear",)
    """Names of the linear layers to adapt, such as q_proj; `all-linear` takes all but the head."""
    target_pattern: str | None = None
    """Adapt the linear layers whose whole names match this regular expression, instead."""
    modules: tuple[str, ...] = ()
    """Names of modules to train whole beside, such as embed_tokens; the adapter holds them."""
    from_adapter: str | None = None
    """Run, or folder of an adapter of the same kind and base, whose weights training goes on
    from."""


class LoRA(Adapter):
    """Train small low-rank matrices beside frozen weights (Hu et al. 2021, arXiv:2106.09685)."""

    kind: Literal["lora"] = "lora"
    rank: Count = 8
    """Width of the added matrices."""
    alpha: Count | None = None
    """Scale: the product is multiplied by alpha / rank; twice the rank if not given."""
    rank_pattern: dict[str, Count] = Field(default_factory=dict)
    """Other ranks for layers whose names end with a pattern: `{v_proj: 16}`."""
    alpha_pattern: dict[str, Count] = Field(default_factory=dict)
    """Other scales for layers whose names end with a pattern."""
    dropout: Number = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the adapter's inputs dropped in training."""
    lora_plus_ratio: Positive = 1.0
    """Learning rate of the matrices that begin at zero over that of the others; 16 usual
    (LoRA+, arXiv:2402.12354)."""
    rslora: bool = False
    """Multiply by alpha / sqrt(rank), so that large ranks learn as fast (arXiv:2312.03732)."""
    dora: bool = False
    """Train the length of each output's weights apart from their direction (arXiv:2402.09353)."""
    init: Init = "default"
    """How the matrices begin: `default` with a product of zero, `orthogonal` too, at right angles;
    `pissa` (arXiv:2404.02948), the faster `pissa_niter` and `olora` (arXiv:2406.01775) with the
    main part of the weights, which is taken out of them; `eva` (arXiv:2410.07170) where the run's
    own rows differ most, with more ranks in the layers where they explain more; `loftq`
    (arXiv:2310.08659) with what `model.quantize` leaves out."""
    eva_rows: Count = 32
    """Rows that `init: eva` looks at."""
    eva_rho: Number = Field(default=2.0, ge=1.0, le=16.0)
    """Most ranks of a layer with `init: eva`, in times of `rank`; 1 leaves ranks as they are."""
    loftq_rounds: Count = 5
    """Times that `init: loftq` quantizes and completes in turn."""
    freeze_a: bool = False
    """Train only the second matrix: fewer activations are kept (LoRA-FA, arXiv:2308.03303)."""
    tokens: tuple[int | str, ...] = ()
    """Tokens whose embeddings are trained beside, by id or text."""


class AdaLoRA(Adapter):
    """Train low-rank matrices whose ranks move to where they are worth most (arXiv:2303.10512)."""

    kind: Literal["adalora"] = "adalora"
    rank: Count = 8
    """Width of the added matrices at the end, the mean over all layers."""
    first_rank: Count = 12
    """Width of each of them at the beginning."""
    alpha: Count | None = None
    """Scale: the product is multiplied by alpha / first_rank; twice first_rank if not given."""
    last_share: Number = Field(default=0.3, ge=0.0, lt=0.9)
    """Share of the updates after the last ranks were taken away; before the first it is 0.1."""


class VeRA(Adapter):
    """Train two vectors a layer beside random matrices that all share (arXiv:2310.11454)."""

    kind: Literal["vera"] = "vera"
    rank: Count = 256
    """Width of the matrices that are shared."""


class OFT(Adapter):
    """Train rotations of what goes into a layer, block by block (arXiv:2306.07280)."""

    kind: Literal["oft"] = "oft"
    block_size: Count = 32
    """Inputs turned together; it must divide the inputs of every layer."""


class IA3(Adapter):
    """Train one factor for each output of a layer, or for each input (arXiv:2205.05638)."""

    kind: Literal["ia3"] = "ia3"
    targets: tuple[str, ...] = ("k_proj", "v_proj", "down_proj")
    """Names of the linear layers whose numbers are scaled."""
    feedforward: tuple[str, ...] = ("down_proj",)
    """Names of those whose inputs are scaled, not their outputs."""


class HRA(Adapter):
    """Train reflections of what goes into a layer, one after another (arXiv:2405.17484)."""

    kind: Literal["hra"] = "hra"
    rank: Count = 8
    """Number of reflections; even, so that they begin by undoing each other."""


class LoHa(Adapter):
    """Train two products of low rank, multiplied number by number (arXiv:2108.06098)."""

    kind: Literal["loha"] = "loha"
    rank: Count = 8
    """Width of the added matrices."""


class LoKr(Adapter):
    """Train a Kronecker product of small matrices (arXiv:2309.14859)."""

    kind: Literal["lokr"] = "lokr"
    rank: Count = 8
    """Width of the added matrices."""


Tuning = Annotated[
    Full | Freeze | LlamaPro | LoRA | AdaLoRA | VeRA | OFT | IA3 | HRA | LoHa | LoKr,
    Field(discriminator="kind"),
]
