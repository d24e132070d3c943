"""The head of a model that scores: numbers for a text, read after its last token."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tunesmith.models.inner import inner_model

if TYPE_CHECKING:
    import torch

SCORE = "score"
"""What transformers calls the head of a model that scores texts."""
HEADS = (SCORE, "classifier")
"""What it calls the heads of models that score texts, or images."""


def find_score(model: torch.nn.Module) -> torch.nn.Module | None:
    """Find the head of a model that scores, seen through an adapter; None for a language model."""
    modules = inner_model(model)._modules
    found: torch.nn.Module | None = next((modules[n] for n in HEADS if n in modules), None)
    return found


@contextmanager
def states_before(head: torch.nn.Module) -> Iterator[list[torch.Tensor]]:
    """Catch the hidden states that a head is given, [batch, seq, hidden]."""
    caught: list[torch.Tensor] = []

    def catch(_: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        caught.append(given[0])

    handle = head.register_forward_pre_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()


def scores_at(model: torch.nn.Module, given: dict[str, Any], at: torch.Tensor) -> torch.Tensor:
    """Run a model that scores, and score what it has read so far at some tokens.

    The model's own result is left alone: it is read where a row's last token that is not padding
    stands, so neither from rows laid end to end nor from a text that ends with the padding token.

    Args:
        given: what its forward takes.
        at: tokens of the flattened batch, [texts].

    Returns:
        [texts, scores], in fp32.
    """
    head = find_score(model)
    assert head is not None  # whoever asks for scores has loaded a model that scores
    with states_before(head) as caught:
        model(**given)
    scores: torch.Tensor = head(caught[0].flatten(0, 1)[at])
    return scores.float()
