"""Score conversations with a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.data.media.places import encode_answered
from tunesmith.errors import DataError
from tunesmith.inference.looked import Looked, looked_arguments, refuse_too_much
from tunesmith.models.chat import RewardModel
from tunesmith.models.inner import inner_model
from tunesmith.models.rope import longest_text
from tunesmith.models.score import scores_at


def score(model: RewardModel, messages: Sequence[Mapping[str, Any]]) -> float:
    """Score a conversation that ends with an answer; the higher, the better the answer.

    Scores mean something beside each other only: of two answers to one question.

    Args:
        messages: role and content each, as for a chat.

    Raises:
        DataError: if the last message is no answer, or the template cannot write them.
        RequestError: if what they show cannot be read.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError(
            "the conversation ends without an answer, so there is nothing to score",
            hint="end it with a message of the role assistant",
        )
    refuse_too_much(messages)
    read = (model.tokenizer, model.template, model.senses)
    row, media = encode_answered(*read, messages)  # as much as is seen in training
    return score_tokens(model, Looked(row.ids, media) if media else row.ids)


def score_text(model: RewardModel, text: str) -> float:
    """Score a conversation that is written already, special tokens included.

    Raises:
        DataError: if it is empty or longer than the model takes.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    return score_tokens(model, [int(token) for token in ids])


def score_tokens(model: RewardModel, ids: Sequence[int]) -> float:
    """Score what is tokens already, and what they show.

    Raises:
        DataError: if there are none, or more than the model takes.
    """
    import torch

    most = longest_text(inner_model(model.model).config) or len(ids)
    if not 0 < len(ids) <= most:
        raise DataError(
            f"the conversation has {len(ids):,} tokens, the model takes 1 to {most:,}",
            hint="shorten it, or write some words",
            where=model.name,
        )
    device = next(model.model.parameters()).device
    tokens, last = torch.tensor([list(ids)], device=device), len(ids) - 1
    with torch.no_grad():
        shown = looked_arguments(model, [ids], tokens, None)
        given = {"input_ids": tokens, "use_cache": False, **shown}
        return float(scores_at(model.model, given, torch.tensor([last], device=device))[0])
