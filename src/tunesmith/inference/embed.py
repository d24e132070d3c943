"""Texts as points: the mean of a model's last hidden states."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.errors import RequestError
from tunesmith.inference.generate import max_positions
from tunesmith.models.chat import ChatModel
from tunesmith.models.inner import inner_model


def embed(model: ChatModel, prompts: Sequence[Sequence[int]]) -> list[list[float]]:
    """Return the mean of the last hidden states of each text, one at a time, in fp32.

    Args:
        prompts: token ids.

    Raises:
        RequestError: if a text is empty or longer than the model takes.
    """
    check_texts(prompts, max_positions(model))
    return [_mean_state(model, prompt) for prompt in prompts]


def check_texts(prompts: Sequence[Sequence[int]], longest: int) -> None:
    """Refuse texts that cannot be read.

    Raises:
        RequestError: if one is empty or longer than the model takes.
    """
    for place, prompt in enumerate(prompts):
        if not 0 < len(prompt) <= longest:
            raise RequestError(
                f"the text has {len(prompt):,} tokens, the model takes 1 to {longest:,}",
                hint="shorten it, or give some words",
                where=f"input.{place}",
            )


def _mean_state(model: ChatModel, prompt: Sequence[int]) -> list[float]:
    import torch

    device = next(model.model.parameters()).device
    ids = torch.tensor([list(prompt)], device=device)
    with torch.no_grad():
        states = inner_model(model.model).base_model(ids, use_cache=False).last_hidden_state
    found: list[float] = states[0].float().mean(dim=0).tolist()
    return found
