"""What transformers' `generate` is told: how to choose tokens, who hears them, when to stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.inference.sampling import COLDEST, Sampling

if TYPE_CHECKING:
    import torch


def write_config(
    sampling: Sampling,
    limit: int,
    stop_ids: Sequence[int],
    pad: int,
    unwritten: Sequence[int] = (),
) -> Any:
    """Write what an answer is to be like.

    Args:
        unwritten: tokens that it does not hold.
    """
    from transformers import GenerationConfig

    drawing: dict[str, Any] = {}
    if sampling.temperature >= COLDEST:
        drawing = {
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": sampling.top_k,
            "min_p": sampling.min_p or None,
        }
    return GenerationConfig(
        max_new_tokens=limit,
        do_sample=bool(drawing),
        repetition_penalty=sampling.repetition_penalty,
        eos_token_id=list(stop_ids) or None,
        pad_token_id=pad,
        suppress_tokens=list(unwritten) or None,
        **drawing,
    )


def add_to_logits(sampling: Sampling, width: int) -> Any:
    """Return what adds to logits by what stands in an answer, and to those with a bias.

    Args:
        width: tokens before the answers.
    """
    import torch
    from transformers import LogitsProcessor, LogitsProcessorList

    class Added(LogitsProcessor):
        def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
            written = input_ids[:, width:]
            ones = torch.ones_like(written, dtype=scores.dtype)
            counts = torch.zeros_like(scores).scatter_add_(1, written, ones)
            scores = scores - sampling.presence_penalty * (counts > 0)
            scores = scores - sampling.frequency_penalty * counts
            for token, bias in sampling.logit_bias.items():
                scores[:, token] += bias
            return scores

    adds = sampling.presence_penalty or sampling.frequency_penalty or sampling.logit_bias
    return LogitsProcessorList([Added()] if adds else [])


class Streamer:
    """What `generate` gives tokens to; the first call holds the prompt."""

    def __init__(self, hear: Callable[[int], None]) -> None:
        self._hear, self._is_prompt = hear, True

    def put(self, tokens: torch.Tensor) -> None:
        """Hand tokens on."""
        if not self._is_prompt:
            for token in tokens.flatten().tolist():
                self._hear(int(token))
        self._is_prompt = False

    def end(self) -> None:
        """Nothing is left over: text is made elsewhere."""


def stop_if(is_cancelled: Callable[[], bool]) -> Any:
    """Stop after the token in work once an answer is cancelled."""
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    class Cancelled(StoppingCriteria):
        def __call__(self, input_ids: torch.Tensor, scores: Any, **_: Any) -> torch.Tensor:
            return torch.full((len(input_ids),), is_cancelled(), device=input_ids.device)

    return StoppingCriteriaList([Cancelled()])
