"""How rotary positions are stretched to texts longer than a model was made for: a class a kind."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from tunesmith.recipe.section import Count, Number, Positive, Section


class _Stretch(Section):
    """What all kinds share."""

    factor: Number | None = Field(default=None, gt=1.0)
    """How many times longer texts become; if not given, the smallest whole number by which
    data.max_tokens fits."""
    original_length: Count | None = None
    """Tokens of the longest text the model was made for; what its config.json says if not given."""


class Linear(_Stretch):
    """Divide all positions by the factor (arXiv:2306.15595)."""

    kind: Literal["linear"] = "linear"


class Dynamic(_Stretch):
    """Stretch slow rotations the more the longer a text is, and short texts not at all."""

    kind: Literal["dynamic"] = "dynamic"


class Yarn(_Stretch):
    """Stretch slow rotations alone, and sharpen attention (arXiv:2309.00071)."""

    kind: Literal["yarn"] = "yarn"


class Llama3(_Stretch):
    """Stretch slow rotations alone, as Llama 3.1 does (arXiv:2407.21783)."""

    kind: Literal["llama3"] = "llama3"
    low_frequency_factor: Positive = 1.0
    """Rotations with fewer turns over the original length are stretched whole."""
    high_frequency_factor: Positive = 4.0
    """Rotations with more turns over the original length are left alone."""


RopeScaling = Annotated[Linear | Dynamic | Yarn | Llama3, Field(discriminator="kind")]
