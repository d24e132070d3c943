"""Which model a run starts from."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.quantize import Quantize
from tunesmith.recipe.section import Section


class Model(Section):
    """The model we start from."""

    name: str = Field(min_length=1)
    """A folder, a Hugging Face cache entry (folder, snapshot or `Org/Name`), or `starter`."""
    from_scratch: bool = False
    """Start from random weights of the folder's config.json instead of its weights."""
    template: str | None = None
    """Chat template for models that ship none: `chatml`, `alpaca`, or a path to a .jinja file."""
    quantize: Quantize | None = None
    """Keep the frozen base in fewer bits, such as `{kind: nf4}`; what LoRA adds stays exact.
    Folders that are quantized already (GPTQ, AWQ, AQLM) are kept as they are, without this."""
