"""The next-token loss that pretraining and imitation share."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tunesmith.methods.method import Batch, LossSum, Row

if TYPE_CHECKING:
    import torch

UNLEARNED = -100
PAD_TO = 8


def pad(rows: Sequence[Row]) -> Batch:
    """Join rows into one batch, padded on the right to the longest.

    Returns:
        input_ids, attention_mask and labels, each [batch, seq]; labels are -100 where nothing is
        learned.
    """
    import torch

    longest = max(len(row["input_ids"]) for row in rows)
    seq = -(-longest // PAD_TO) * PAD_TO
    ids = torch.zeros(len(rows), seq, dtype=torch.long)
    mask = torch.zeros(len(rows), seq, dtype=torch.long)
    labels = torch.full((len(rows), seq), UNLEARNED, dtype=torch.long)
    for place, row in enumerate(rows):
        length = len(row["input_ids"])
        ids[place, :length] = torch.tensor(row["input_ids"])
        mask[place, :length] = 1
        labels[place, :length] = torch.tensor(row["labels"])
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def next_token_loss(model: torch.nn.Module, batch: Batch) -> LossSum:
    """Sum -log p(token | tokens before it) over the learned tokens of a batch.

    Logits are computed only at positions where some row of the batch learns the next token; for
    long prompts that saves most of the head's work and memory.

    Args:
        model: a causal language model.
        batch: what `pad` returns; its labels are not shifted.
    """
    import torch
    from torch.nn.functional import cross_entropy

    targets = batch["labels"][:, 1:]
    positions = (targets != UNLEARNED).any(dim=0).nonzero().squeeze(1)
    accepted = forward_names(model)
    rest: dict[str, Any] = {"use_cache": False} if "use_cache" in accepted else {}
    if "logits_to_keep" in accepted:
        rest["logits_to_keep"] = positions
    logits = model(
        input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **rest
    ).logits
    if "logits_to_keep" not in accepted:
        logits = logits[:, positions]
    targets = targets[:, positions]
    total = cross_entropy(
        logits.flatten(0, 1).float(),
        targets.flatten(),
        ignore_index=UNLEARNED,
        reduction="sum",
    )
    return LossSum(total, torch.count_nonzero(targets != UNLEARNED))


def forward_names(model: torch.nn.Module) -> frozenset[str]:
    """List what the architecture's forward takes, seen through an adapter."""
    from peft import PeftModel

    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return frozenset(inspect.signature(inner.forward).parameters)
