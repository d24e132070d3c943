"""Which model a run starts from."""

from __future__ import annotations

from pydantic import Field

from tunesmith.recipe.quantize import Quantize
from tunesmith.recipe.rope import RopeScaling
from tunesmith.recipe.section import Count, Section


class Model(Section):
    """The model we start from."""

    name: str = Field(min_length=1)
    """A folder, a Hugging Face cache entry (folder, snapshot or `Org/Name`), or `starter`."""
    adapters: tuple[str, ...] = ()
    """Runs, or folders of adapters, that are added to its weights first, one after another."""
    from_scratch: bool = False
    """Start from random weights of the folder's config.json instead of its weights."""
    template: str | None = None
    """Chat template for models that ship none: `chatml`, `alpaca`, or a path to a .jinja file."""
    quantize: Quantize | None = None
    """Keep the frozen base in fewer bits, such as `{kind: nf4}`; what LoRA adds stays exact.
    Folders that are quantized already (GPTQ, AWQ, AQLM) are kept as they are, without this."""
    shifted_attention: Count | None = None
    """While training, let tokens see only their groups of so many, half of the heads shifted by
    half a group: long rows learn faster (arXiv:2309.12307)."""
    rope_scaling: RopeScaling | None = None
    """Stretch its rotary positions to longer texts, such as `{kind: yarn, factor: 4}`."""
