"""In how many bits the frozen base is kept: one class a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.section import Section


class NF4(Section):
    """Keep the base in 4 bits spaced like a bell curve (Dettmers et al. 2023, arXiv:2305.14314)."""

    kind: Literal["nf4"] = "nf4"
    double: bool = True
    """Quantize the scales of the blocks too: 4.1 bits a weight instead of 4.5."""


class FP4(Section):
    """Keep the base in floating-point numbers of 4 bits."""

    kind: Literal["fp4"] = "fp4"
    double: bool = True
    """Quantize the scales of the blocks too: 4.1 bits a weight instead of 4.5."""


class Int8(Section):
    """Keep the base in whole numbers of 8 bits with a scale a row (arXiv:2208.07339)."""

    kind: Literal["int8"] = "int8"


class HQQ(Section):
    """Keep the base in whole numbers that leave large errors to few weights (HQQ, Badri 2023)."""

    kind: Literal["hqq"] = "hqq"
    bits: Literal[1, 2, 3, 4, 8] = 4
    """Bits a weight, besides 32 for each group. Below 3, answers of small models fall apart."""
    group: Literal[8, 16, 32, 64, 128, 256] = 64
    """Weights that share a scale and a zero."""


class TorchAO(Section):
    """Keep the base in whole numbers that torchao chooses."""

    kind: Literal["torchao"] = "torchao"
    bits: Literal[4, 8] = 8
    """8 bits share a scale a row, 4 bits one for each 32 weights of a row."""


Quantize = Annotated[NF4 | FP4 | Int8 | HQQ | TorchAO, Field(discriminator="kind")]
