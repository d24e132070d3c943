"""Adam-mini, told the true size of a head."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adam_mini import Adam_mini

from tunesmith.errors import RecipeError
from tunesmith.models.inner import inner_model
from tunesmith.recipe.optimizer import AdamMini
from tunesmith.recipe.options import Recipe
from tunesmith.training.optimizers.weights import Weight

if TYPE_CHECKING:
    import torch


def build_adam_mini(
    recipe: Recipe, model: torch.nn.Module, weights: list[Weight]
) -> torch.optim.Optimizer:
    """Build the package's optimizer for a model whose heads and neurons it knows by name.

    Raises:
        RecipeError: if it does not.
    """
    options = recipe.optimizer
    assert isinstance(options, AdamMini)
    names = [name for name, _ in model.named_parameters()]
    stacked = any(weight.tensor.dim() > 2 for weight in weights)
    if stacked or not any("q_proj" in name for name in names):
        raise RecipeError(
            "adam_mini gives heads and neurons rates of their own, and does not know this model's",
            hint="write optimizer.name: adamw",
            where="optimizer.name",
        )
    config = inner_model(model).config.get_text_config()
    optimizer: Any = Adam_mini(
        [(weight.name, weight.tensor) for weight in weights],
        lr=options.learning_rate,
        betas=(options.beta1, options.beta2),
        eps=options.eps,
        weight_decay=options.weight_decay,
        dim=config.hidden_size,
        n_heads=config.num_attention_heads,
        verbose=False,
    )
    of_one = config.hidden_size // config.num_attention_heads
    # the package takes a head to be a share of the width, and counts GPUs that take no part
    optimizer.head_numel = config.hidden_size * (config.to_dict().get("head_dim") or of_one)
    optimizer.world_size = 1
    for group, weight in zip(optimizer.param_groups, weights, strict=True):
        group["lr"] = options.learning_rate * weight.rate
    built: torch.optim.Optimizer = optimizer
    return built
