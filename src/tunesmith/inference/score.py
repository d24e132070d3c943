"""Score conversations with a reward model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tunesmith.data.tokens import encode_rows
from tunesmith.errors import DataError
from tunesmith.models.chat import RewardModel
from tunesmith.models.score import scores_at


def score(model: RewardModel, messages: Sequence[Mapping[str, str]]) -> float:
    """Score a conversation that ends with an answer; the higher, the better the answer.

    Scores mean something beside each other only: of two answers to one question.

    Args:
        messages: role and content each, as for a chat.

    Raises:
        DataError: if the last message is no answer, or the template cannot write them.
    """
    import torch

    if not messages or messages[-1]["role"] != "assistant":
        raise DataError(
            "the conversation ends without an answer, so there is nothing to score",
            hint="end it with a message of the role assistant",
        )
    rendered = model.template.render_rows([dict(one) for one in messages], learn_history=False)
    (row,) = encode_rows(model.tokenizer, rendered)
    ids = row.ids[: row.learned[-1][1]]  # what follows is not seen in training either
    device = next(model.model.parameters()).device
    given = {"input_ids": torch.tensor([ids], device=device), "use_cache": False}
    with torch.no_grad():
        return float(scores_at(model.model, given, torch.tensor([len(ids) - 1], device=device))[0])
