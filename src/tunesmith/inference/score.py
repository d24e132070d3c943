"""Score conversations with a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.data.tokens import encode_rows
from tunesmith.errors import DataError
from tunesmith.models.chat import RewardModel
from tunesmith.models.inner import inner_model
from tunesmith.models.rope import longest_text
from tunesmith.models.score import scores_at


def score(model: RewardModel, messages: Sequence[Mapping[str, str]]) -> float:
    """Score a conversation that ends with an answer; the higher, the better the answer.

    Scores mean something beside each other only: of two answers to one question.

    Args:
        messages: role and content each, as for a chat.

    Raises:
        DataError: if the last message is no answer, or the template cannot write them.
    """
    if not messages or messages[-1]["role"] != "assistant":
        raise DataError(
            "the conversation ends without an answer, so there is nothing to score",
            hint="end it with a message of the role assistant",
        )
    rendered = model.template.render_rows([dict(one) for one in messages], learn_history=False)
    (row,) = encode_rows(model.tokenizer, rendered)
    return _score_tokens(model, row.ids[: row.learned[-1][1]])  # as much as is seen in training


def score_text(model: RewardModel, text: str) -> float:
    """Score a conversation that is written already, special tokens included.

    Raises:
        DataError: if it is empty or longer than the model takes.
    """
    ids = model.tokenizer.encode(text, add_special_tokens=False)
    return _score_tokens(model, [int(token) for token in ids])


def _score_tokens(model: RewardModel, ids: Sequence[int]) -> float:
    import torch

    most = longest_text(inner_model(model.model).config) or len(ids)
    if not 0 < len(ids) <= most:
        raise DataError(
            f"the conversation has {len(ids):,} tokens, the model takes 1 to {most:,}",
            hint="shorten it, or write some words",
            where=model.name,
        )
    device = next(model.model.parameters()).device
    given = {"input_ids": torch.tensor([list(ids)], device=device), "use_cache": False}
    with torch.no_grad():
        return float(scores_at(model.model, given, torch.tensor([len(ids) - 1], device=device))[0])
