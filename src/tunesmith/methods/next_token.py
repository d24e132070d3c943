"""The next-token loss that pretraining and imitation share."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from tunesmith.data.token_rows import UNLEARNED
from tunesmith.methods.method import Batch, LossSum
from tunesmith.methods.neftune import noisy_embeddings

if TYPE_CHECKING:
    import torch

    from tunesmith.models.head import Head


def next_token_loss(model: torch.nn.Module, batch: Batch, *, noise: float = 0.0) -> LossSum:
    """Sum -log p(token | tokens before it) over the learned tokens of a batch.

    Logits are computed only where a token is learned, and never all of them at once.

    Args:
        model: a causal language model.
        batch: what `join` returns; its labels are not shifted.
        noise: strength of noise on the embeddings while training, 0 for none.
    """
    from tunesmith.models.layout import find_layout

    targets = batch["labels"][:, 1:]
    positions = (targets != UNLEARNED).any(dim=0).nonzero().squeeze(1)
    targets = targets[:, positions]
    learned = targets != UNLEARNED
    head = find_layout(model).head
    given = _arguments(model, batch, positions)
    if noise and model.training:
        given["inputs_embeds"] = noisy_embeddings(model, batch, noise)
        del given["input_ids"]
    if head is None:
        total = _whole_loss(model, given, positions, targets)
    else:
        from tunesmith.models.head import summed_loss

        hidden = _hidden(model, head, given, positions)
        total = summed_loss(head, hidden[learned], targets[learned])
    return LossSum(total, learned.sum())


def _hidden(
    model: torch.nn.Module, head: Head, given: dict[str, Any], positions: torch.Tensor
) -> torch.Tensor:
    """Run the model up to its head: [batch, positions, hidden]."""
    from tunesmith.models.head import hidden_only

    with hidden_only(head) as caught:
        model(**given)
    (hidden,) = caught
    return hidden if "logits_to_keep" in given else hidden[:, positions]


def _whole_loss(
    model: torch.nn.Module,
    given: dict[str, Any],
    positions: torch.Tensor,
    targets: torch.Tensor,
) -> torch.Tensor:
    """Let the model compute its logits itself."""
    from torch.nn.functional import cross_entropy

    logits = model(**given).logits
    if "logits_to_keep" not in given:
        logits = logits[:, positions]
    return cross_entropy(
        logits.flatten(0, 1).float(), targets.flatten(), ignore_index=UNLEARNED, reduction="sum"
    )


def _arguments(model: torch.nn.Module, batch: Batch, positions: torch.Tensor) -> dict[str, Any]:
    accepted = forward_names(model)
    rest: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted:
        rest["logits_to_keep"] = positions
    if "edges" in batch:
        from tunesmith.models.row_attention import as_mask

        mask = as_mask(batch["edges"].tolist())
        rest |= {"position_ids": batch["position_ids"], "attention_mask": mask}
    else:
        rest["attention_mask"] = batch["attention_mask"]
    return {"input_ids": batch["input_ids"], **rest}


def forward_names(model: torch.nn.Module) -> frozenset[str]:
    """List what the architecture's forward takes, seen through an adapter."""
    from tunesmith.models.inner import inner_model

    return frozenset(inspect.signature(inner_model(model).forward).parameters)
