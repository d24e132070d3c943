"""New blocks between those of a model that at first change nothing (arXiv:2401.02415)."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

from tunesmith.errors import RecipeError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

LAST = ("self_attn.o_proj", "mlp.down_proj")
"""What a block adds comes out of these."""
AFTER = ("post_attention_layernorm", "post_feedforward_layernorm")
"""Norms that what comes out passes, in families that have the second."""
BY_LAYER = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Lists of the configuration with an entry for each block."""
PROBE = tuple(range(1, 9))


def add_blocks(model: PreTrainedModel, count: int) -> list[torch.nn.Module]:
    """Put new blocks evenly between those of a model, each a copy of the one before that adds 0.

    Returns:
        The new blocks.

    Raises:
        RecipeError: if the model has too few blocks, or ones that cannot be silenced.
    """
    import torch

    inner: Any = model.base_model
    config: Any = model.config.get_text_config()
    old = list(inner._modules.get("layers") or ())
    if not old or any(path not in _paths(layer) for layer in old for path in LAST):
        raise _refusal(
            f"blocks of {config.model_type} cannot be silenced: they have other layers than most",
            "write tuning.kind: lora or freeze",
        )
    if count > len(old):
        raise _refusal(
            f"the model has {len(old)} blocks, and {count} are to be put between them",
            f"write tuning.blocks: {len(old)}, or fewer",
        )
    said = _say(model)
    places = [at * len(old) // count - 1 for at in range(1, count + 1)]
    new = {place: _silent(old[place]) for place in places}
    inner.layers = torch.nn.ModuleList(_lay_out(old, new))
    _number(inner.layers)
    for name in BY_LAYER:
        kinds = config.to_dict().get(name)
        if isinstance(kinds, list | tuple):
            vars(config)[name] = _lay_out(list(kinds), {place: kinds[place] for place in new})
    config.num_hidden_layers = len(inner.layers)
    now = _say(model)
    if said is not None and now is not None and not torch.equal(said, now):
        raise _refusal(
            f"new blocks change what a model of {config.model_type} says",
            "write tuning.kind: lora or freeze",
        )
    return list(new.values())


def _lay_out(old: list[Any], new: dict[int, Any]) -> list[Any]:
    """Put each new one behind the old one of its place."""
    return [each for at, one in enumerate(old) for each in (one, *([new[at]] if at in new else ()))]


def _paths(layer: torch.nn.Module) -> set[str]:
    return {name for name, _ in layer.named_modules()}


def _silent(layer: torch.nn.Module) -> torch.nn.Module:
    """Copy a block and let it add nothing.

    Where norms stand behind what comes out, their factors are set to zero: a norm makes a small
    sum as large as any, so that behind a matrix of zeros the first update would be a leap.
    """
    import torch

    configs = [vars(module).get("config") for module in layer.modules()]
    block: Any = deepcopy(layer, {id(config): config for config in configs})
    ends = LAST
    if AFTER[1] in block._modules:
        ends = AFTER
    for path in ends:
        module = block.get_submodule(path)
        for weight in module.parameters():
            torch.nn.init.zeros_(weight)
        if path in AFTER and _begins_at_one(module):
            torch.nn.init.constant_(module.weight, -1.0)
    return block  # type: ignore[no-any-return]


def _begins_at_one(norm: torch.nn.Module) -> bool:
    """Whether a norm multiplies by one more than its weight, as Gemma's does."""
    import torch

    weight: Any = norm.weight
    if weight.is_meta:
        return False
    with torch.no_grad():
        return bool(norm(torch.ones_like(weight)).abs().sum() > 0)


def _number(layers: Any) -> None:
    """Count blocks anew: the cache of a conversation keeps them by number."""
    for at, layer in enumerate(layers):
        for module in layer.modules():
            if "layer_idx" in vars(module):
                module.layer_idx = at


def _say(model: Any) -> torch.Tensor | None:
    """Ask a model for its logits; None if it holds no numbers."""
    import torch

    weight = next(model.parameters())
    if weight.is_meta:
        return None
    ids = torch.tensor([PROBE], device=weight.device)
    was_training = model.training
    model.eval()
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    model.train(was_training)
    return logits


def _refusal(message: str, hint: str) -> RecipeError:
    return RecipeError(message, hint=hint, where="tuning.blocks")
