"""Weights that transformers saves by other names, or in other pieces, than a model has them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import safe_open

from tunesmith.errors import RunError
from tunesmith.models.load import read_weights

if TYPE_CHECKING:
    import torch


def restore_renamed(model: torch.nn.Module, folder: Path) -> bool:
    """Put saved weights back into a model, if they do not lie in the folder by its own names.

    Families that see keep the names of older days in files, and mixtures each expert by itself;
    transformers turns them round where it loads a model, but not where its Trainer goes on.

    Returns:
        False if they lie there as the model has them, so that nothing was done.

    Raises:
        RunError: if they are of another model.
    """
    if _names(folder) <= model.state_dict().keys():
        return False
    import torch

    ours: Any = model
    # What learns may be more exact than what is frozen: fp32 holds both to the bit.
    again, loaded = read_weights(type(ours), folder, {"dtype": torch.float32})
    strange = sorted({*loaded["missing_keys"], *loaded["unexpected_keys"]})
    strange += [name for name, *_ in loaded["mismatched_keys"]]
    if strange:
        raise RunError(
            f"the checkpoint does not fit the model: {', '.join(strange[:3])}",
            hint="put the recipe and the base back as they were, or train anew",
            where=str(folder),
        )
    model.load_state_dict(again.state_dict(), strict=False)  # a head of values is put back apart
    return True


def _names(folder: Path) -> set[str]:
    found: set[str] = set()
    for path in folder.glob("model*.safetensors"):
        with safe_open(path, framework="pt") as file:
            found.update(file.keys())
    return found
