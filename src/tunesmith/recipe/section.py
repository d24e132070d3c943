"""What every section of a recipe shares."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _is_number(value: Any) -> Any:
    """Refuse true and false, which Python takes for 1 and 0."""
    if isinstance(value, bool):
        raise ValueError("true and false are no numbers")
    return value


MOST = 10**9
"""No count of ours is larger; what is, is a slip of the hand."""
Number = Annotated[float, BeforeValidator(_is_number)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(_is_number)]
NotNegative = Annotated[float, Field(ge=0), BeforeValidator(_is_number)]
Noise = Annotated[float, Field(ge=0, lt=0.5), BeforeValidator(_is_number)]
"""Share of labels that are wrong; at a half they would say nothing."""
WholeNumber = Annotated[int, BeforeValidator(_is_number)]
Count = Annotated[int, Field(gt=0, le=MOST), BeforeValidator(_is_number)]
CountOrZero = Annotated[int, Field(ge=0, le=MOST), BeforeValidator(_is_number)]


class Section(BaseModel):
    """A group of options: unknown names are errors, values never change after loading."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
    )
