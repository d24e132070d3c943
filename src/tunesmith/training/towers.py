"""What the part of a model that sees or hears keeps for the way back, while it learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING, Any

from tunesmith.models.inner import inner_model
from tunesmith.models.load import load_config
from tunesmith.models.parts import language_prefix, part_of
from tunesmith.models.seeing import GRIDS
from tunesmith.recipe.tuning import Parted

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from tunesmith.data.token_rows import TokenRows
    from tunesmith.models.senses import Senses
    from tunesmith.recipe.tuning import Tuning
    from tunesmith.training.sizes import Kept

TOWERS = ("vision_config", "audio_config")
WIDTHS = ("embed_dim", "d_model", "hidden_size")
"""What a tower's width is called; where there are two, the last is that of what it gives."""
DEPTHS = ("depth", "encoder_layers", "num_hidden_layers")
INNER = ("intermediate_size", "encoder_ffn_dim")
HELD, HELD_GATED = (10.0, 2.5), (13.0, 4.0)
"""Numbers that a layer keeps of a patch, in its width and in that of its middle; as measured, the
first of CLIP, SigLIP and Qwen 3 VL, the second where the middle has a gate, of Qwen 2.5 VL."""
LOOKED_AT = 256


@dataclass(frozen=True)
class Tower:
    """A tower that learns.

    Attributes:
        hidden, inner, layers: its sizes.
        patches: what it reads for each token of the row that shows most.
    """

    hidden: int
    inner: int
    layers: int
    patches: float

    def add_to(
        self, kept: Callable[[bool], Kept], model: torch.nn.Module, width: int
    ) -> Callable[[bool], Kept]:
        """Add what it keeps to what a language model does.

        Args:
            model: the whole.
            width: bytes a number.
        """
        language = language_prefix(model)
        names = (name for name, _ in inner_model(model).named_modules() if "gate_proj" in name)
        gated = any(part_of(name, language, "") == "tower" for name in names)
        widths, middles = HELD_GATED if gated else HELD
        layer = width * (widths * self.hidden + middles * self.inner)
        inputs = float(width * self.hidden * self.layers)

        def both(checkpointing: bool) -> Kept:
            found = kept(checkpointing)
            own = self.patches * (layer + inputs if checkpointing else layer * self.layers)
            return replace(found, per_token=found.per_token + own)

        return both


def find_tower(
    folder: Path, tuning: Tuning, senses: Senses | None, rows: TokenRows
) -> Tower | None:
    """Measure the tower that learns from what rows show; None if none does."""
    learns = isinstance(tuning, Parted) and "tower" in tuning.parts
    if senses is None or not learns:
        return None
    every = range(0, len(rows), max(1, len(rows) // LOOKED_AT))
    showing = [row for row in (rows[number] for number in every) if "shown" in row]
    options = load_config(folder).to_dict()
    tower = next((options[name] for name in TOWERS if isinstance(options.get(name), dict)), None)
    if not showing or tower is None:
        return None
    counts = [sum(token in senses.ids for token in row["input_ids"]) for row in showing]
    shares = [count / len(row["input_ids"]) for count, row in zip(counts, showing, strict=True)]
    first = count_patches(senses.numbers([showing[0]["shown"].open()]), tower)
    hidden = int(_first(tower, WIDTHS) or 0)
    inner = _first(tower, INNER) or int(hidden * tower.get("mlp_ratio", 4))
    layers = int(_first(tower, DEPTHS) or 0)
    return Tower(hidden, int(inner), layers, max(shares) * first / max(counts[0], 1))


def count_patches(numbers: Mapping[str, Any], tower: Mapping[str, Any]) -> int:
    """Count what a tower reads: patches of images and videos, stretches of sounds."""
    if grids := [numbers[name] for name in GRIDS if name in numbers]:
        return sum(int(grid.prod(dim=1).sum()) for grid in grids)
    if "input_features" in numbers:
        return len(numbers["input_features"]) * int(tower["max_source_positions"])
    if "pixel_values" not in numbers:
        return 0
    size = tower.get("patch_size", 14)
    sides = size if isinstance(size, Sequence) else (size, size)
    pixels = numbers["pixel_values"]
    return int(pixels.numel() // 3 // prod(map(int, sides)))


def _first(options: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((options[name] for name in names if options.get(name)), None)
