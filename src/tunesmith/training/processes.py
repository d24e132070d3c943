"""How many processes share a training."""

from __future__ import annotations

from tunesmith.errors import RecipeError
from tunesmith.hardware import choose_device
from tunesmith.recipe.optimizer import Layerwise
from tunesmith.recipe.options import Recipe
from tunesmith.training.order import update_rows


def num_processes(recipe: Recipe) -> int:
    """Count the processes: those of the recipe, else one for each GPU that would have a row.

    Raises:
        RecipeError: if the recipe asks for more than there are GPUs.
    """
    import torch

    asked = recipe.compute.processes
    if choose_device(recipe.compute.device).type != "cuda":
        return asked or 1
    gpus = torch.cuda.device_count()
    if asked and asked > gpus:
        raise RecipeError(
            f"{asked} processes need a GPU each, torch sees {gpus}",
            hint=f"write compute.processes: {gpus}, or compute.device: cpu",
            where="compute.processes",
        )
    if isinstance(recipe.optimizer, Layerwise) and recipe.optimizer.layerwise:
        return 1
    return asked or (gpus if recipe.optimizer.update_tokens else min(gpus, update_rows(recipe)))
